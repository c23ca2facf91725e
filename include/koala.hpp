/* koala.hpp: libkoala for C++17 and later, over koala.h, which says what each setting, number and buffer means.
 *
 *     koala::Optimizer optimizer;
 *     std::size_t weight = optimizer.add_tensor<float>("weight", 3, optimizer.add_group());
 *     std::vector<float> parameters{1, -2, 3}, gradient{0.1f, 0.2f, -0.3f};
 *     koala::Loss loss = koala::Loss::from_samples(std::vector<float>{0.5f, 0.9f});
 *     koala::Report report = optimizer.step(loss, {{weight, parameters, gradient}});
 *
 * What holds everywhere:
 *   - The structs are those of koala.h, with constructors: all their members are there. A new one has the defaults, and
 *     its size is set.
 *   - Buffers stay the caller's. A buffer is a koala::Span, or what makes one: a C array, a std::vector, or anything
 *     else with data() and size() whose elements are known to lie one after another. What is written must be no
 *     temporary.
 *   - A matrix, Map, Ref or Block of Eigen is a buffer if its elements lie one after another; else an ArgumentError is
 *     thrown. Parameters, gradient, v and h that are matrices have one shape, or an ArgumentError is thrown, and one
 *     storage order, or the program does not compile.
 *   - Trouble is thrown as a koala::Error, in the class that catches it apart. Nothing has been written then.
 *   - No function here allocates, unless it returns a std::string or a std::vector, throws, or says so.
 *   - What koala.h says on threads holds here: see Optimizer.
 *
 * Licence: MIT or Apache-2.0.
 */

#ifndef KOALA_HPP
#define KOALA_HPP

#include "koala.h"

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace koala {

using Status = koala_status;
using Backend = koala_backend;
using ElementType = koala_element_type;
using StateType = koala_state_type;

/// Every exception of this library. what() names the tensor and the numbers.
class Error : public std::runtime_error {
 public:
  Error(Status status, const std::string& text) : std::runtime_error(text), status_(status) {}

  /// What koala.h calls it.
  Status status() const noexcept { return status_; }

 private:
  Status status_;
};

/// A mistake in the call: a pointer, length, element type, text, size or enum is not as it has to be.
struct ArgumentError : Error { using Error::Error; };
/// A number is outside of its range.
struct SettingError : Error { using Error::Error; };
/// Something is NaN or infinite, and KOALA_ON_NON_FINITE_ERROR is set.
struct NonFiniteError : Error { using Error::Error; };
/// An innovation variance would not be positive, and KOALA_ON_BREAKDOWN_ERROR is set.
struct BreakdownError : Error { using Error::Error; };
/// There is no such tensor or group, or the tensor was added, or given, before.
struct TensorError : Error { using Error::Error; };
/// There is no such backend, or this processor lacks it.
struct BackendError : Error { using Error::Error; };
/// There is no CUDA driver or device, a buffer or stream is not the device's, or a call of the driver failed.
struct DeviceError : Error { using Error::Error; };
/// There is not enough memory.
struct MemoryError : Error { using Error::Error; };
/// The threads could not be had.
struct ThreadsError : Error { using Error::Error; };
/// A file cannot be read or written.
struct FileError : Error { using Error::Error; };
/// A file is not a checkpoint, is damaged, or is of a newer version or of another model.
struct CheckpointError : Error { using Error::Error; };
/// Header and library do not fit.
struct VersionError : Error { using Error::Error; };
/// A mistake in the library: please report it. An Optimizer that was part of it can only be destroyed.
struct LibraryError : Error { using Error::Error; };

inline void check(Status status);

namespace detail {

[[noreturn]] inline void raise(Status status, const std::string& text) {
  switch (status) {
    case KOALA_STATUS_SETTING: throw SettingError(status, text);
    case KOALA_STATUS_NON_FINITE: throw NonFiniteError(status, text);
    case KOALA_STATUS_BREAKDOWN: throw BreakdownError(status, text);
    case KOALA_STATUS_UNKNOWN_TENSOR: case KOALA_STATUS_DUPLICATE_TENSOR:
    case KOALA_STATUS_UNKNOWN_GROUP: throw TensorError(status, text);
    case KOALA_STATUS_UNKNOWN_BACKEND: case KOALA_STATUS_ABSENT_BACKEND: throw BackendError(status, text);
    case KOALA_STATUS_ABSENT_DEVICE: case KOALA_STATUS_FOREIGN_DEVICE:
    case KOALA_STATUS_DRIVER: throw DeviceError(status, text);
    case KOALA_STATUS_MEMORY: throw MemoryError(status, text);
    case KOALA_STATUS_THREADS: throw ThreadsError(status, text);
    case KOALA_STATUS_FILE: throw FileError(status, text);
    case KOALA_STATUS_DAMAGED: case KOALA_STATUS_NEWER:
    case KOALA_STATUS_MISMATCH: throw CheckpointError(status, text);
    case KOALA_STATUS_VERSION: throw VersionError(status, text);
    case KOALA_STATUS_PANIC: case KOALA_STATUS_POISONED: throw LibraryError(status, text);
    case KOALA_STATUS_NULL_POINTER: case KOALA_STATUS_MISALIGNED: case KOALA_STATUS_OVERLAP:
    case KOALA_STATUS_STRUCT_SIZE: case KOALA_STATUS_UNKNOWN_VALUE: case KOALA_STATUS_LENGTH: case KOALA_STATUS_TYPE:
    case KOALA_STATUS_ENCODING: case KOALA_STATUS_NO_SAMPLES: case KOALA_STATUS_HALVES:
    case KOALA_STATUS_NOT_PREDICTED: case KOALA_STATUS_METHOD: throw ArgumentError(status, text);
    case KOALA_STATUS_OK: case KOALA_STATUS_OTHER: break;
  }
  throw Error(status, text);
}

/// `whose` is a text, or a number of a tensor.
template <class Whose>
void need_length(const Whose& whose, std::size_t expected, std::size_t found, const char* where) {
  if (found == expected) return;
  std::string text;
  if constexpr (std::is_integral_v<Whose>) text = "tensor " + std::to_string(whose);
  else text = whose;
  text += ": expected " + std::to_string(expected) + " elements, found " + std::to_string(found) + " in " + where;
  raise(KOALA_STATUS_LENGTH, text);
}

/// A text of the library: copy(buffer, capacity, length) is called for its length, then for itself.
template <class Copy>
std::string text_from(Copy copy) {
  std::size_t length = 0;
  copy(nullptr, 0, &length);
  std::string text(length, '\0');
  copy(text.data(), length + 1, nullptr);
  return text;
}

/// What a function of koala.h writes to where its last argument points.
template <class Result, class Function, class... Arguments>
Result result_of(Function function, Arguments... arguments) {
  Result result{};
  check(function(arguments..., &result));
  return result;
}

/// A text that ends with NUL, and has no other.
inline const char* c_text(const std::string& text) {
  if (text.find('\0') != std::string::npos) raise(KOALA_STATUS_ENCODING, "a text has a NUL before its end");
  return text.c_str();
}

template <class Container>
constexpr std::size_t length_of(const Container& elements) {
  return static_cast<std::size_t>(std::size(elements));
}

/// Whether that is a std::vector, whatever allocates for it; that of bool has no elements to point at.
template <class Value, class Allocator>
std::negation<std::is_same<Value, bool>> is_vector(const std::vector<Value, Allocator>*);
std::false_type is_vector(const void*);

/// Whether the iterators of a container show that its elements lie one after another.
template <class Container, class = void>
struct IteratesInOrder : std::false_type {};
template <class Container>
struct IteratesInOrder<Container, std::void_t<decltype(std::begin(std::declval<const Container&>()))>> {
  using Iterator = decltype(std::begin(std::declval<const Container&>()));
  using Value = std::remove_cv_t<std::remove_pointer_t<decltype(std::data(std::declval<const Container&>()))>>;
#if defined(__cpp_lib_concepts)
  static constexpr bool value = std::contiguous_iterator<Iterator>;
#else
  static constexpr bool value = std::is_pointer_v<Iterator> ||
                                decltype(is_vector(std::declval<const Container*>()))::value ||
                                std::is_same_v<Iterator, typename std::vector<Value>::const_iterator> ||
                                std::is_same_v<Iterator, typename std::array<Value, 1>::const_iterator>;
#endif
};

/// Whether a type says where its elements lie, as those of Eigen do.
template <class Matrix, class = void>
struct HasStrides : std::false_type {};
template <class Matrix>
struct HasStrides<Matrix, std::void_t<decltype(std::declval<const Matrix&>().innerStride()),
                                      decltype(std::declval<const Matrix&>().outerStride()),
                                      decltype(std::declval<const Matrix&>().innerSize()),
                                      decltype(std::declval<const Matrix&>().outerSize())>> : std::true_type {};

/// Throws if there is something between the elements of a matrix.
template <class Matrix>
void need_no_gaps(const Matrix& matrix) {
  const bool within = matrix.innerSize() <= 1 || matrix.innerStride() == 1;
  const bool among = matrix.outerSize() <= 1 || matrix.outerStride() == matrix.innerSize();
  if (matrix.size() == 0 || (within && among)) return;
  raise(KOALA_STATUS_LENGTH, "the elements of a matrix do not lie one after another: its inner stride is " +
                                 std::to_string(matrix.innerStride()) + ", and its outer stride " +
                                 std::to_string(matrix.outerStride()) + ", where one has " +
                                 std::to_string(matrix.innerSize()) + " elements");
}

/// Where the elements of a container begin, which lie one after another: that is known, or looked at.
template <class Container>
constexpr auto* data_of(Container& elements) {
  if constexpr (HasStrides<std::remove_cv_t<Container>>::value) {
    need_no_gaps(elements);
  } else {
    static_assert(IteratesInOrder<std::remove_cv_t<Container>>::value,
                  "it is not known that these elements lie one after another; "
                  "if they do, give a koala::Span(data, size)");
  }
  return std::data(elements);
}

/// The storage order of a matrix; none of a vector, and of what says nothing about it.
enum class Order { none, row_major, column_major };
template <class Elements, class = void>
struct OrderOf : std::integral_constant<Order, Order::none> {};
template <class Matrix>
struct OrderOf<Matrix, std::void_t<decltype(static_cast<bool>(Matrix::IsRowMajor)),
                                   decltype(static_cast<bool>(Matrix::IsVectorAtCompileTime))>>
    : std::integral_constant<Order, static_cast<bool>(Matrix::IsVectorAtCompileTime) ? Order::none
                                    : static_cast<bool>(Matrix::IsRowMajor)          ? Order::row_major
                                                                                     : Order::column_major> {};
template <class Elements>
constexpr Order order_of = OrderOf<std::remove_cv_t<std::remove_reference_t<Elements>>>::value;

/// Looks whether the elements of two buffers of a tensor are in the same places, as far as both say where they are.
template <class Whose, class Theta, class Other>
void need_same_places(const Whose& whose, const Theta& parameters, const Other& other, const char* name) {
  if constexpr (order_of<Theta> != Order::none && order_of<Other> != Order::none) {
    static_assert(order_of<Theta> == order_of<Other>,
                  "one matrix of a tensor is row-major and another column-major: their elements are in other places");
    const std::string rows = std::string(name) + ", whose rows have to be those of the parameters";
    need_length(whose, static_cast<std::size_t>(parameters.rows()), static_cast<std::size_t>(other.rows()),
                rows.c_str());
  }
}

template <class Container>
using ElementOf = std::remove_pointer_t<decltype(std::data(std::declval<Container&>()))>;
template <class Container, class T>
using IfElements = std::enable_if_t<std::is_convertible_v<ElementOf<Container> (*)[], T (*)[]>>;

}  // namespace detail

/// The text of the last call on this thread that did not succeed.
inline std::string last_error() { return detail::text_from(koala_last_error); }

/// Throws what a status stands for, unless it is KOALA_STATUS_OK; for calls of koala.h.
inline void check(Status status) {
  if (status != KOALA_STATUS_OK) detail::raise(status, last_error());
}

/// A few words on a status.
inline const char* status_text(Status status) noexcept { return koala_status_string(status); }
/// The library's version: 1000000 times major, plus 1000 times minor, plus patch.
inline std::uint32_t version() noexcept { return koala_version(); }
/// Throws a VersionError if the program was compiled with a header that does not fit the library.
inline void check_version() { check(koala_check_version(KOALA_VERSION)); }

/// `size()` elements that lie one after another, and are somebody else's. Copying it copies no element.
template <class T>
class Span {
 public:
  using element_type = T;
  using value_type = std::remove_cv_t<T>;

  constexpr Span() noexcept = default;
  constexpr Span(T* data, std::size_t size) noexcept : data_(data), size_(size) {}
  template <class Container, class = detail::IfElements<Container, T>>
  constexpr Span(Container& elements) : data_(detail::data_of(elements)), size_(detail::length_of(elements)) {}
  template <class Container, class = detail::IfElements<const Container, T>>
  constexpr Span(const Container& elements) : data_(detail::data_of(elements)), size_(detail::length_of(elements)) {}

  constexpr T* data() const noexcept { return data_; }
  constexpr std::size_t size() const noexcept { return size_; }
  constexpr bool empty() const noexcept { return size_ == 0; }
  constexpr T* begin() const noexcept { return data_; }
  constexpr T* end() const noexcept { return data_ + size_; }
  constexpr T& operator[](std::size_t place) const { return data_[place]; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

template <class Container> Span(Container&) -> Span<detail::ElementOf<Container>>;
template <class Container> Span(const Container&) -> Span<detail::ElementOf<const Container>>;

/// bfloat16: the upper half of a float.
struct bf16 { std::uint16_t bits; };
/// IEEE 754 binary16.
struct f16 { std::uint16_t bits; };

/// What koala.h calls an element type. Specialize it for a type of yours with the same bits, such as Eigen::half.
template <class E> struct ElementTypeOf;
template <> struct ElementTypeOf<float> : std::integral_constant<ElementType, KOALA_ELEMENT_TYPE_F32> {};
template <> struct ElementTypeOf<double> : std::integral_constant<ElementType, KOALA_ELEMENT_TYPE_F64> {};
template <> struct ElementTypeOf<bf16> : std::integral_constant<ElementType, KOALA_ELEMENT_TYPE_BF16> {};
template <> struct ElementTypeOf<f16> : std::integral_constant<ElementType, KOALA_ELEMENT_TYPE_F16> {};

namespace detail {

template <class E>
constexpr ElementType element_type() {
  constexpr ElementType type = ElementTypeOf<std::remove_cv_t<E>>::value;
  static_assert(sizeof(E) == (type == KOALA_ELEMENT_TYPE_F64 ? 8 : type == KOALA_ELEMENT_TYPE_F32 ? 4 : 2));
  return type;
}

template <class P, class S>
constexpr StateType state_type() {
  constexpr ElementType own = element_type<P>(), state = element_type<S>();
  static_assert(own == state || state == KOALA_ELEMENT_TYPE_F32 || state == KOALA_ELEMENT_TYPE_BF16,
                "v and h are in the type of the parameters, in float, or in bf16");
  return own == state                      ? KOALA_STATE_TYPE_SAME
         : state == KOALA_ELEMENT_TYPE_F32 ? KOALA_STATE_TYPE_F32 : KOALA_STATE_TYPE_BF16;
}

/// What koala_tensor and koala_parameters have in common.
template <class Struct>
struct Buffers : Struct {
  /// Another gradient, for the next step: of the type of the parameters, and as many. Throws an ArgumentError. A matrix
  /// is given as a Span: whether it has the parameters' storage order is the caller's to know here, and below.
  template <class Gradient>
  void set_gradient(const Gradient& elements) {
    need_no_order<Gradient>();
    const Span read(elements);
    constexpr ElementType type = element_type<typename decltype(read)::element_type>();
    if (type != this->type) raise(KOALA_STATUS_TYPE, "the gradient is not of the parameters' type");
    need_length(whose(), this->length, read.size(), "the gradient");
    this->gradient = read.data();
    if constexpr (std::is_same_v<Struct, koala_tensor>) this->exchange = 0;
  }

  /// A second place for the new parameters, in bf16 or f16: written if the tensor steps. Throws an ArgumentError.
  template <class Copy>
  void set_copy(Copy&& elements) {
    need_no_order<Copy>();
    const Span written(std::forward<Copy>(elements));
    constexpr ElementType type = element_type<typename decltype(written)::element_type>();
    static_assert(type == KOALA_ELEMENT_TYPE_BF16 || type == KOALA_ELEMENT_TYPE_F16, "a copy is in half precision");
    need_length(whose(), this->length, written.size(), "the copy");
    this->copy = written.data();
    this->copy_type = type == KOALA_ELEMENT_TYPE_BF16 ? KOALA_COPY_TYPE_BF16 : KOALA_COPY_TYPE_F16;
  }

 protected:
  Buffers() : Struct() { this->size = sizeof(Struct); }

  template <class Elements>
  static constexpr void need_no_order() {
    static_assert(order_of<Elements> == Order::none,
                  "it is not known here whether a matrix has the storage order of the parameters; if it has, give a "
                  "koala::Span of it");
  }

  template <class P>
  void set_parameters(Span<P> elements) {
    static_assert(!std::is_const_v<P>, "parameters are written");
    this->length = elements.size();
    this->type = element_type<P>();
    this->parameters = elements.data();
  }

  auto whose() const {
    if constexpr (std::is_same_v<Struct, koala_tensor>) return "the tensor";
    else return this->tensor;
  }
};

/// Where the reports of a list of tensors go: NULL if there is no place for any.
inline koala_tensor_report* place_of(Span<koala_tensor_report> reports, std::size_t tensors) {
  if (reports.empty()) return nullptr;
  need_length("the list", tensors, reports.size(), "the reports");
  return reports.data();
}

}  // namespace detail

/// A backend: its number and name, what it is, and whether this processor has it, and if not, why.
struct BackendInfo : koala_backend_info {
  /// Throws a BackendError if there is none of that number.
  explicit BackendInfo(Backend which) : koala_backend_info() {
    size = sizeof(koala_backend_info);
    check(koala_backend_describe(which, this));
  }
};

/// Every backend that the library knows, present or not.
inline std::vector<BackendInfo> backends() {
  const auto count = detail::result_of<std::size_t>(koala_backend_count);
  std::vector<BackendInfo> found;
  for (std::size_t number = 1; number <= count; ++number) found.emplace_back(static_cast<Backend>(number));
  return found;
}

/// The backend that runs where KOALA_BACKEND_FASTEST is asked for.
inline Backend fastest_backend() { return detail::result_of<Backend>(koala_backend_fastest); }

/// The backend of that name. Throws a BackendError if there is none, or if this processor lacks it.
inline Backend backend_by_name(const std::string& name) {
  return detail::result_of<Backend>(koala_backend_by_name, detail::c_text(name));
}

/// The backend that the environment variable KOALA_BACKEND names, or the fastest where it is not set.
inline Backend backend_from_environment() { return detail::result_of<Backend>(koala_backend_from_environment); }

/// The name of a backend, such as "avx2", or "fastest"; for ever valid. NULL for a number that is none.
inline const char* backend_name(Backend backend) noexcept { return koala_backend_name(backend); }

/// The settings of a group of tensors.
struct Settings : koala_settings {
  Settings() : koala_settings() { check(koala_settings_init(this, sizeof(koala_settings))); }
};

/// Which optimizer steps, and its numbers.
struct Method : koala_method {
  /// With the defaults of that kind.
  explicit Method(koala_method_kind which = KOALA_METHOD_KIND_KOALA_PLUS_PLUS) : koala_method() {
    check(koala_method_init(this, sizeof(koala_method), which));
  }

  /// Moves the shared numbers to the time of the next measurement, for callers without an Optimizer: before each step
  /// of KOALA-V and KOALA-M, whose prediction predict_tensors makes.
  void predict(double distance_squared = 0, std::size_t parameters = 0) {
    check(koala_method_predict(this, distance_squared, parameters));
  }
  /// Lets the shared numbers learn from a step, for callers without an Optimizer: the gain is that of the Report.
  void correct(double gain) { check(koala_method_correct(this, gain)); }
};

/// What an Optimizer is made with. A Method that `method` points to is copied then.
struct Config : koala_config {
  Config() : koala_config() { check(koala_config_init(this, sizeof(koala_config))); }
};

/// The measurement of one step: of a minibatch, the mean loss and the mean of the squared per-sample losses.
struct Loss : koala_loss {
  Loss(double mean_, double second_moment_) : koala_loss{mean_, second_moment_} {}

  /// From the loss of each sample, of any element type. Throws an ArgumentError if there are none.
  template <class Samples>
  static Loss from_samples(const Samples& samples) {
    const Span losses(samples);
    constexpr ElementType type = detail::element_type<typename decltype(losses)::element_type>();
    const auto found = detail::result_of<koala_loss>(koala_loss_from_samples, type, losses.data(), losses.size());
    return {found.mean, found.second_moment};
  }
};

/// The noise of the next step, for callers who keep it themselves: decay·noise + (1 − decay)·m, with m the loss's
/// second moment. Throws a SettingError.
inline double noise_update(double decay, const Loss& loss, double noise) {
  check(koala_noise_update(decay, &loss, &noise));
  return noise;
}

/// The scalars of one tensor's filter between two steps; zero before the first.
struct Scalars : koala_scalars { Scalars() : koala_scalars() {} };

/// What a step did with one tensor.
using TensorReport = koala_tensor_report;

/// What a step did with a list of tensors.
struct Report : koala_report { Report() : koala_report() { size = sizeof(koala_report); } };

/// What a load loaded, and how much it did not.
struct Loaded : koala_loaded { Loaded() : koala_loaded() { size = sizeof(koala_loaded); } };

/// Everything about a step but the tensors, for the functions that need no Optimizer.
struct Step : koala_step {
  Step() : koala_step() { check(koala_step_init(this, sizeof(koala_step))); }

  /// With the minibatch's mean loss L, and R, the variance of the measurement noise.
  Step(double loss_, double noise_) : Step() {
    loss = loss_;
    noise = noise_;
  }

  /// Sets the settings of the groups, which stay the caller's and must live as long as the Step.
  void set_groups(Span<const Settings> settings) {
    groups = settings.data();
    group_count = settings.size();
  }
};

/// A tensor whose buffers are the caller's, for the functions that need no Optimizer: pointers to them, nothing else.
struct Tensor : detail::Buffers<koala_tensor> {
  Tensor() = default;

  /// Five buffers of n elements: parameters θ, read and written; gradient g, read; v and h, the state, read (but for a
  /// first step) and written, in the type of the parameters, in float, or in bf16; and the filter's scalars. The group
  /// is a place in the Step's groups. Throws an ArgumentError if a length is not that of the parameters.
  template <class Theta, class Gradient, class V, class H>
  Tensor(Theta&& theta, const Gradient& gradient_, V&& v_, H&& h_, koala_scalars& scalars_, std::uint32_t group_ = 0) {
    const Span written(std::forward<Theta>(theta));
    const Span stored_v(std::forward<V>(v_));
    using P = typename decltype(written)::element_type;
    using S = typename decltype(stored_v)::element_type;
    static_assert(!std::is_const_v<S>, "v and h are written");
    const Span<S> stored_h(h_);
    set_parameters(written);
    set_gradient(Span<const P>(gradient_));
    detail::need_length(whose(), length, stored_v.size(), "v");
    detail::need_length(whose(), length, stored_h.size(), "h");
    detail::need_same_places(whose(), theta, gradient_, "the gradient");
    detail::need_same_places(whose(), theta, v_, "v");
    detail::need_same_places(whose(), theta, h_, "h");
    state_type = detail::state_type<P, S>();
    group = group_;
    v = stored_v.data();
    h = stored_h.data();
    scalars = &scalars_;
  }

  /// As set_gradient, but a whole step may keep the gradient's memory for h, and give that of h instead, which saves
  /// writing h. Afterwards `if (tensor.h == gradient.data()) std::swap(gradient, h);`, say: the members tell.
  template <class Gradient>
  void lend_gradient(Gradient&& elements) {
    need_no_order<Gradient>();
    const Span lent(std::forward<Gradient>(elements));
    static_assert(!std::is_const_v<typename decltype(lent)::element_type>, "a gradient that is lent is written");
    set_gradient(lent);
    exchange = 1;
  }
};

/// The dot products of a tensor, or of a part of one: those of the parts add up to those of the whole.
struct Dots : koala_dots {
  Dots() : koala_dots() {}

  Dots& operator+=(const Dots& other) noexcept {
    koala_dots_add(this, &other);
    return *this;
  }
  friend Dots operator+(Dots left, const Dots& right) noexcept { return left += right; }
};

/// One whole step of one tensor, by the calling thread; several threads may step different tensors at once.
inline TensorReport step_tensor(const Step& step, Tensor& tensor) {
  return detail::result_of<TensorReport>(koala_step_tensor, &step, &tensor);
}

/// One whole step of each tensor, with the bits of step_tensor, and faster than that for many. As many reports as
/// tensors are written, unless there is no place for any. The library may allocate: see koala_step::on_non_finite.
inline Report step_tensors(const Step& step, Span<Tensor> tensors, Span<TensorReport> reports = {}) {
  return detail::result_of<Report>(koala_step_tensors, &step, tensors.data(), tensors.size(),
                                   detail::place_of(reports, tensors.size()));
}

/// What KOALA-M's prediction gives its Method.
struct Prediction {
  double distance_squared = 0;
  std::size_t parameters = 0;
};

/// KOALA-M's prediction, before the gradient of a step is taken: see koala_predict_tensors.
inline Prediction predict_tensors(const Step& step, Span<Tensor> tensors) {
  Prediction found;
  check(koala_predict_tensors(&step, tensors.data(), tensors.size(), &found.distance_squared, &found.parameters));
  return found;
}

/// The first half of a step: the dots of a tensor, or of the part of one that this process has. Writes no buffer.
inline Dots dots_tensor(const Step& step, const Tensor& tensor) {
  return detail::result_of<Dots>(koala_dots_tensor, &step, &tensor);
}

/// The first half of a step of many tensors: as many dots are written.
inline void dots_tensors(const Step& step, Span<const Tensor> tensors, Span<Dots> dots) {
  detail::need_length("the list", tensors.size(), dots.size(), "the dots");
  check(koala_dots_tensors(&step, tensors.data(), tensors.size(), dots.data()));
}

/// The second half of a step: decides by the dots of the whole tensor, and writes the tensor, or the part of one that
/// this process has. The Step and the Tensor are those of the first half. The report has no norms.
inline TensorReport apply_tensor(const Step& step, const Tensor& tensor, const Dots& dots) {
  return detail::result_of<TensorReport>(koala_apply_tensor, &step, &tensor, &dots);
}

/// The second half of a step of many tensors, with as many dots; reports as in step_tensors.
inline Report apply_tensors(const Step& step, Span<const Tensor> tensors, Span<const Dots> dots,
                            Span<TensorReport> reports = {}) {
  detail::need_length("the list", tensors.size(), dots.size(), "the dots");
  return detail::result_of<Report>(koala_apply_tensors, &step, tensors.data(), tensors.size(), dots.data(),
                                   detail::place_of(reports, tensors.size()));
}

/// The parameters and the gradient of one of an Optimizer's tensors: pointers to them, and nothing else. It may be kept
/// for the steps to come, as long as the buffers stay where they are.
struct Parameters : detail::Buffers<koala_parameters> {
  Parameters() = default;

  /// The tensor's number, its parameters θ, read and written, and as many elements g of the gradient, read. Throws an
  /// ArgumentError if their lengths differ; whether they are those of the tensor, the step looks.
  template <class Theta, class Gradient>
  Parameters(std::size_t number, Theta&& theta, const Gradient& gradient_) {
    const Span written(std::forward<Theta>(theta));
    tensor = number;
    set_parameters(written);
    set_gradient(Span<const typename decltype(written)::element_type>(gradient_));
    detail::need_same_places(number, theta, gradient_, "the gradient");
  }
};

// Lists of them are given as lists of koala.h's structs.
static_assert(sizeof(Settings) == sizeof(koala_settings) && sizeof(Tensor) == sizeof(koala_tensor) &&
              sizeof(Dots) == sizeof(koala_dots) && sizeof(Parameters) == sizeof(koala_parameters));

/// The number of an Optimizer's group.
enum class Group : std::uint32_t {};

/// KOALA++, or another Method, over a model: named tensors in groups, their filters, the noise that they share. It can
/// be moved, not copied; one that was moved from can be destroyed and assigned to, all else throws an ArgumentError.
///
/// Const functions may be called by several threads at once, as long as none is in another function; those by one
/// thread at a time, which need not be the one that made it.
class Optimizer {
 public:
  /// Without tensors. Allocates, and starts the threads that the Config asks for.
  explicit Optimizer(const Config& config = Config())
      : optimizer_(detail::result_of<koala_optimizer*>(koala_optimizer_create, &config)) {}

  /// Makes a group of tensors with the same settings. Allocates.
  Group add_group(const Settings& settings = Settings()) {
    return Group{detail::result_of<std::uint32_t>(koala_optimizer_add_group, handle(), &settings)};
  }

  /// Makes a tensor known, of `length` parameters of type P, and allocates its state. Gives its number: they go from 0
  /// on. No two tensors have the same name, which is UTF-8.
  template <class P>
  std::size_t add_tensor(const std::string& name, std::size_t length, Group group,
                         StateType state_type = KOALA_STATE_TYPE_SAME) {
    return detail::result_of<std::size_t>(koala_optimizer_add_tensor, handle(), detail::c_text(name), length,
                                          detail::element_type<P>(), state_type, static_cast<std::uint32_t>(group));
  }

  /// Steps the given tensors, some or all, in any order, each once; in the order in which they were added is cheapest.
  /// As many reports as tensors are written, unless there is no place for any. Allocates for a log only. What the log
  /// throws, this throws when all tensors have stepped.
  Report step(const Loss& loss, Span<const Parameters> tensors, Span<TensorReport> reports = {}) {
    const auto report = detail::result_of<Report>(koala_optimizer_step, handle(), &loss, tensors.data(), tensors.size(),
                                                  detail::place_of(reports, tensors.size()));
    if (log_ && log_->thrown) std::rethrow_exception(std::exchange(log_->thrown, nullptr));
    return report;
  }

  /// KOALA-M's prediction, before the gradients of each step are taken; those of the Parameters are not looked at.
  void predict(Span<const Parameters> tensors) {
    check(koala_optimizer_predict(handle(), tensors.data(), tensors.size()));
  }

  /// The same for a list in braces: step(loss, {{weight, parameters, gradient}}).
  Report step(const Loss& loss, std::initializer_list<Parameters> tensors, Span<TensorReport> reports = {}) {
    return step(loss, Span<const Parameters>(tensors), reports);
  }

  /// Saves all that the optimizer knows to a file, from which load goes on with the bits of a run that never stopped.
  /// Even if this process is killed, the path leads to the old file or to the new one, each whole. The path is UTF-8.
  /// Throws a FileError. Allocates.
  void save(const std::string& path) const { check(koala_optimizer_save(handle(), detail::c_text(path))); }
  /// Loads what save has saved; the optimizer needs to have been made with the same tensors in the same groups. Throws
  /// a FileError, or a CheckpointError whose what() lists every tensor that differs, unless only what fits is to be
  /// loaded; nothing has changed then. Allocates.
  Loaded load(const std::string& path, koala_loading loading = KOALA_LOADING_EXACT) {
    return detail::result_of<Loaded>(koala_optimizer_load, handle(), detail::c_text(path), loading);
  }
  /// What the last load did not load: a line for each difference.
  std::string differences() const {
    return detail::text_from([&](char* buffer, std::size_t capacity, std::size_t* length) {
      check(koala_optimizer_differences(handle(), buffer, capacity, length));
    });
  }

  /// The settings of a group.
  Settings settings(Group group) const {
    return detail::result_of<Settings>(koala_optimizer_settings, handle(), static_cast<std::uint32_t>(group));
  }
  /// Changes the settings of a group from the next step on.
  void set_settings(Group group, const Settings& settings) {
    check(koala_optimizer_set_settings(handle(), static_cast<std::uint32_t>(group), &settings));
  }
  /// Changes the numbers of a group's method from the next step on: see koala_optimizer_set_method.
  void set_method(Group group, const Method& method) {
    check(koala_optimizer_set_method(handle(), static_cast<std::uint32_t>(group), &method));
  }
  /// Changes the learning rate of a group from the next step on.
  void set_learning_rate(Group group, double learning_rate) {
    check(koala_optimizer_set_learning_rate(handle(), static_cast<std::uint32_t>(group), learning_rate));
  }
  /// Changes what becomes of gradients as they are loaded, from the next step on: see koala_config.
  void set_scaling(double factor, double limit = HUGE_VAL) {
    check(koala_optimizer_set_scaling(handle(), factor, limit));
  }
  /// Changes how many threads a step uses, from the next one on.
  void set_threads(std::uint32_t count) { check(koala_optimizer_set_threads(handle(), count)); }

  /// Has `log` called with a line of text for every tensor whose filter restarts, or which is kept because something is
  /// not finite or because of a breakdown; an empty function ends that. It is called during step, by the thread that
  /// called step, must not call this Optimizer, and may throw. It is kept as long as the Optimizer, and moved with it.
  /// Allocates.
  void set_log(std::function<void(std::string_view)> log) {
    auto kept = log ? std::make_unique<Log>(Log{std::move(log), nullptr}) : nullptr;
    check(koala_optimizer_set_log(handle(), kept ? Log::hear : nullptr, kept.get()));
    log_ = std::move(kept);
  }

  /// How many tensors there are.
  std::size_t tensor_count() const { return detail::result_of<std::size_t>(koala_optimizer_tensor_count, handle()); }
  /// The number of the tensor of that name.
  std::size_t find_tensor(const std::string& name) const {
    return detail::result_of<std::size_t>(koala_optimizer_find_tensor, handle(), detail::c_text(name));
  }
  /// The name of a tensor.
  std::string tensor_name(std::size_t tensor) const {
    return detail::text_from([&](char* buffer, std::size_t capacity, std::size_t* length) {
      check(koala_optimizer_tensor_name(handle(), tensor, buffer, capacity, length));
    });
  }
  /// The scalars of a tensor's filter after the last step.
  Scalars scalars(std::size_t tensor) const {
    return detail::result_of<Scalars>(koala_optimizer_scalars, handle(), tensor);
  }
  /// Copies v and h of a tensor's filter, as they are stored, as long as the tensor; either may be left out by {}. S is
  /// the state's type, or std::byte for plain bytes: only the number of bytes is looked at.
  template <class S>
  void state(std::size_t tensor, Span<S> v, Span<S> h) const {
    static_assert(std::is_trivially_copyable_v<S> && !std::is_const_v<S>, "v and h are written as bytes");
    if (!v.empty() && !h.empty()) detail::need_length(tensor, v.size(), h.size(), "h");
    check(koala_optimizer_state(handle(), tensor, v.empty() ? nullptr : v.data(), h.empty() ? nullptr : h.data(),
                                (v.empty() ? h : v).size() * sizeof(S)));
  }

  /// Restarts the filter of a tensor: its next step will be a first step.
  void restart(std::size_t tensor) { check(koala_optimizer_restart(handle(), tensor)); }
  /// The method, with its shared numbers as they are after the last step.
  Method method() const { return detail::result_of<Method>(koala_optimizer_method, handle()); }
  /// R, as the last step used it.
  double noise() const { return detail::result_of<double>(koala_optimizer_noise, handle()); }
  /// The backend that steps run on: never KOALA_BACKEND_FASTEST.
  Backend backend() const { return detail::result_of<Backend>(koala_optimizer_backend, handle()); }
  /// For calls of koala.h; it stays this object's, and is NULL after a move from it.
  koala_optimizer* handle() const noexcept { return optimizer_.get(); }

 private:
  struct Destroy {
    void operator()(koala_optimizer* optimizer) const noexcept { koala_optimizer_destroy(optimizer); }
  };

  // On the heap: the library keeps a pointer to it, which a move must not change.
  struct Log {
    std::function<void(std::string_view)> function;
    std::exception_ptr thrown;

    // No exception may go through the library.
    static void hear(void* context, const char* text) noexcept {
      Log& log = *static_cast<Log*>(context);
      try {
        log.function(text);
      } catch (...) {
        if (!log.thrown) log.thrown = std::current_exception();
      }
    }
  };

  std::unique_ptr<Log> log_;
  std::unique_ptr<koala_optimizer, Destroy> optimizer_;
};

}  // namespace koala

#endif  // KOALA_HPP
