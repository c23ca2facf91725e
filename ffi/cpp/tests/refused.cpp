// What koala.hpp must not take for a buffer: each case is compiled by itself, with its number for REFUSED, and must not
// compile. With 0 there is none, and the rest compiles.

#include <Eigen/Dense>
#include <deque>
#include <list>
#include <map>
#include <vector>

#include "koala.hpp"

#if __cplusplus >= 202002L
#include <span>
#endif

using Columns = Eigen::MatrixXf;
using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <>
struct koala::ElementTypeOf<Eigen::half> : std::integral_constant<koala::ElementType, KOALA_ELEMENT_TYPE_F16> {};

/// Somebody's view of every other element, with data() and size().
struct EveryOther {
  float* data() const { return nullptr; }
  std::size_t size() const { return 0; }
};

/// The same, with iterators that are no pointers.
struct Hopping : EveryOther {
  std::deque<float>::iterator begin() const { return {}; }
  std::deque<float>::iterator end() const { return {}; }
};

int main() {
  Columns columns(2, 3);
  Rows rows(2, 3);
  Eigen::VectorXf column(6);
  Eigen::RowVectorXf row(6);
  std::vector<float> vector(6);
  koala_scalars scalars{};
  // All of these are taken.
  koala::Parameters both(0, columns, columns), same(0, rows, rows), vectors(0, column, row), flat(0, columns, vector);
  koala::Tensor tensor(columns, columns, columns, columns, scalars);
  both.set_gradient(koala::Span<const float>(columns));
#if __cplusplus >= 202002L
  koala::Parameters spans(0, std::span<float>(vector), std::span<const float>(vector));
#endif

#if REFUSED == 1
  std::deque<float> deque(6);
  koala::Parameters refused(0, deque, deque);
#elif REFUSED == 2
  std::list<float> list(6);
  koala::Parameters refused(0, vector, list);
#elif REFUSED == 3
  std::vector<bool> bits(6);
  koala::Parameters refused(0, vector, bits);
#elif REFUSED == 4
  EveryOther view;
  koala::Parameters refused(0, vector, view);
#elif REFUSED == 5
  Hopping view;
  koala::Parameters refused(0, view, vector);
#elif REFUSED == 6
  float table[2][3] = {};
  koala::Parameters refused(0, table, table);
#elif REFUSED == 7
  koala::Parameters refused(0, columns, rows);
#elif REFUSED == 8
  koala::Parameters refused(0, columns, columns.transpose());
#elif REFUSED == 9
  koala::Tensor refused(columns, columns, rows, columns, scalars);
#elif REFUSED == 10
  koala::Tensor refused(columns, columns, columns, rows, scalars);
#elif REFUSED == 11
  both.set_gradient(rows);
#elif REFUSED == 12
  tensor.lend_gradient(rows);
#elif REFUSED == 13
  Eigen::Matrix<Eigen::half, 2, 3> halves;
  both.set_copy(halves);
#elif REFUSED == 14
  koala::Parameters refused(0, columns, columns + columns);
#elif REFUSED == 15
  koala::Parameters refused(0, columns.reverse(), columns);
#elif REFUSED == 16
  const std::vector<float> constant(6);
  koala::Parameters refused(0, constant, vector);
#endif
}
