// Matrices of Eigen as buffers: those whose elements lie one after another are stepped, and what lies between is not
// touched; others are an error, and nothing has been written. Says what is wrong on standard error, and ends with 1
// then.

#include <Eigen/Dense>
#include <cstdio>
#include <string>

#include "koala.hpp"

namespace {

using Columns = Eigen::MatrixXf;
using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Strided = Eigen::Map<Columns, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;

int failures = 0;

void expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "eigen.cpp: %s\n", what);
  ++failures;
}

template <class Call>
void expect_error(const char* word, const char* what, Call call) {
  try {
    call();
    expect(false, what);
  } catch (const koala::ArgumentError& error) {
    expect(error.status() == KOALA_STATUS_LENGTH && std::string(error.what()).find(word) != std::string::npos, what);
  }
}

/// Steps as many parameters as the vector has, of which the rest of a matrix is none.
template <class Theta, class Gradient>
void step(Theta&& theta, const Gradient& gradient) {
  koala::Optimizer optimizer;
  const std::size_t number =
      optimizer.add_tensor<float>("weight", static_cast<std::size_t>(theta.size()), optimizer.add_group());
  optimizer.step(koala::Loss(0.7, 0.6), {{number, theta, gradient}});
}

template <class Matrix>
void expect_refused(const char* what, Matrix&& theta) {
  const Columns before = theta;
  const std::vector<float> gradient(static_cast<std::size_t>(theta.size()), 0.5f);
  expect_error("one after another", what, [&] { step(theta, gradient); });
  expect_error("one after another", what, [&] { koala::Loss::from_samples(theta); });
  expect(Columns(theta) == before, what);
}

void gaps() {
  Columns columns = Columns::Random(5, 4);
  Rows rows = Rows::Random(5, 4);
  auto block = columns.block(1, 1, 2, 3), upper = columns.topRows(2);
  auto block_of_rows = rows.block(1, 1, 2, 3), left = rows.leftCols(2);
  auto row = columns.row(1);
  auto column = rows.col(1);
  auto diagonal = columns.diagonal();
  expect_refused("a block", block);
  expect_refused("the upper rows", upper);
  expect_refused("a block of rows", block_of_rows);
  expect_refused("the left columns of rows", left);
  expect_refused("a row of columns", row);
  expect_refused("a column of rows", column);
  expect_refused("a diagonal", diagonal);
  Strided outer(columns.data(), 2, 3, {5, 1}), inner(columns.data(), 2, 3, {4, 2}), none(columns.data(), 2, 3, {0, 0});
  Eigen::Ref<Columns> reference = upper;
  expect_refused("a map with an outer stride", outer);
  expect_refused("a map with an inner stride", inner);
  expect_refused("a map with no stride", none);
  expect_refused("a reference to a block", reference);
}

void no_gaps() {
  const Columns gradient = Columns::Constant(5, 2, 0.5f);
  const Columns before = Columns::Random(5, 4);
  Columns whole = before.leftCols(2);
  step(whole, gradient);
  Columns columns = before;
  auto left = columns.leftCols(2);
  step(left, gradient);
  expect(columns.leftCols(2) == whole && columns.rightCols(2) == before.rightCols(2), "the left columns");
  columns = before;
  Strided map(columns.data(), 5, 2, {5, 1});
  step(map, gradient);
  expect(columns.leftCols(2) == whole && columns.rightCols(2) == before.rightCols(2), "a map without gaps");
  columns = before;
  Eigen::Ref<Columns> reference = left;
  step(reference, gradient);
  expect(columns.leftCols(2) == whole && columns.rightCols(2) == before.rightCols(2), "a reference");
  // One column, or one element, whatever the strides.
  Eigen::VectorXf first = before.col(0);
  step(first, Eigen::VectorXf(gradient.col(0)));
  columns = before;
  auto column = columns.col(0);
  step(column, Eigen::RowVectorXf(gradient.col(0).transpose()));
  expect(columns.col(0) == first && columns.rightCols(3) == before.rightCols(3), "a column");
  auto one = columns.block(1, 1, 1, 1);
  step(one, std::vector<float>{0.5f});
  expect(columns(1, 1) != before(1, 1) && columns(1, 2) == before(1, 2), "one element of a matrix");
}

void shapes() {
  Columns theta = Columns::Random(2, 3);
  const Columns before = theta, turned = Columns::Constant(3, 2, 0.5f);
  expect_error("rows", "another shape", [&] { step(theta, turned); });
  koala_scalars scalars{};
  const Columns gradient = Columns::Constant(2, 3, 0.5f);
  Columns v = Columns::Zero(3, 2), h = Columns::Zero(2, 3);
  expect_error("rows", "v of another shape", [&] { koala::Tensor(theta, gradient, v, h, scalars); });
  expect_error("rows", "h of another shape", [&] { koala::Tensor(theta, gradient, h, v, scalars); });
  expect(theta == before, "another shape: written");
}

}  // namespace

int main() {
  gaps();
  no_gaps();
  shapes();
  return failures != 0;
}
