// Every public item of koala.hpp. Says what is wrong on standard error, and ends with 1 then.

#include "koala.hpp"

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <random>
#include <typeinfo>

static std::size_t allocations = 0;
// Through a pointer, and not inlined: else g++ warns, and valgrind says, that free does not match new.
static void (*volatile release)(void*) = std::free;

[[gnu::noinline]] void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size != 0 ? size : 1)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { release(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { release(memory); }

/// An allocator of somebody else's.
template <class T>
struct OwnAllocator {
  using value_type = T;
  OwnAllocator() = default;
  template <class U>
  OwnAllocator(const OwnAllocator<U>&) {}
  T* allocate(std::size_t length) { return std::allocator<T>().allocate(length); }
  void deallocate(T* elements, std::size_t length) { std::allocator<T>().deallocate(elements, length); }
  bool operator==(const OwnAllocator&) const { return true; }
  bool operator!=(const OwnAllocator&) const { return false; }
};

/// An element type of somebody else's.
struct OwnHalf { std::uint16_t bits; };
template <>
struct koala::ElementTypeOf<OwnHalf> : std::integral_constant<koala::ElementType, KOALA_ELEMENT_TYPE_F16> {};

namespace {

int failures = 0;

void expect(bool holds, const std::string& what) {
  if (holds) return;
  std::fprintf(stderr, "wrapper.cpp: %s\n", what.c_str());
  ++failures;
}

/// Whether the call throws just that class, with that status and those words in its text.
template <class Expected, class Call>
void expect_error(koala::Status status, std::initializer_list<const char*> words, const std::string& what, Call call) {
  try {
    call();
    expect(false, what + ": nothing was thrown");
  } catch (const Expected& error) {
    expect(typeid(error) == typeid(Expected), what + ": the class is not the right one");
    expect(error.status() == status, what + ": the status is " + koala::status_text(error.status()));
    for (const char* word : words)
      expect(std::string(error.what()).find(word) != std::string::npos,
             what + ": no \"" + word + "\" in \"" + error.what() + "\"");
  } catch (const std::exception& error) {
    expect(false, what + ": another class, with \"" + error.what() + "\"");
  }
}

/// To the last bit.
template <class T>
bool same(const std::vector<T>& left, const std::vector<T>& right) {
  return left.size() == right.size() &&
         (left.empty() || std::memcmp(left.data(), right.data(), left.size() * sizeof(T)) == 0);
}

template <class T>
bool same(const T& left, const T& right) {
  return std::memcmp(&left, &right, sizeof left) == 0;
}

std::mt19937 random_bits(7);

float random_float() { return std::ldexp(static_cast<float>(random_bits() & 0xffffff), -23) - 1; }

template <class E>
E random_element() {
  if constexpr (std::is_floating_point_v<E>) {
    return random_float();
  } else if constexpr (koala::ElementTypeOf<E>::value == KOALA_ELEMENT_TYPE_BF16) {
    const float value = random_float();
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    return {static_cast<std::uint16_t>(bits >> 16)};
  } else {
    // Either sign, an exponent from -7 to 0, any fraction.
    const auto bits = random_bits();
    return {static_cast<std::uint16_t>((bits & 0x83ff) | ((8 + (bits >> 16) % 8) << 10))};
  }
}

double value_of(koala::bf16 element) {
  const std::uint32_t bits = std::uint32_t{element.bits} << 16;
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

double value_of(koala::f16 element) {
  const int exponent = element.bits >> 10 & 31, fraction = element.bits & 1023;
  const double size = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return element.bits >> 15 != 0 ? -size : size;
}

template <class E>
std::vector<E> random_elements(std::size_t length) {
  std::vector<E> elements(length);
  for (E& element : elements) element = random_element<E>();
  return elements;
}

/// A tensor's buffers.
template <class P, class S>
struct Owned {
  std::vector<P> parameters, gradient;
  std::vector<S> v, h;
  koala::Scalars scalars;

  explicit Owned(std::size_t length)
      : parameters(random_elements<P>(length)), gradient(random_elements<P>(length)), v(length), h(length) {}
  koala::Tensor tensor(std::uint32_t group = 0) { return {parameters, gradient, v, h, scalars, group}; }
  void new_gradient() { gradient = random_elements<P>(gradient.size()); }
  bool operator==(const Owned& other) const {
    return same(parameters, other.parameters) && same(v, other.v) && same(h, other.h) && same(scalars, other.scalars);
  }
};

/// One element type and state type: an optimizer, whole steps, lists of one, halves and exchanges give the same bits.
template <class P, class S>
void all_ways_agree(const std::string& name) {
  const std::size_t length = 1003;
  constexpr koala::StateType state_type = koala::detail::state_type<P, S>();
  Owned<P, S> whole(length);
  Owned<P, S> listed = whole, halved = whole, exchanged = whole, kept = whole;

  std::vector<koala::bf16> bf16_copy(length), expected_bf16_copy(length);
  std::vector<koala::f16> f16_copy(length);
  koala::Optimizer optimizer;
  const koala::Group group = optimizer.add_group();
  const std::size_t number = optimizer.add_tensor<P>(name, length, group, state_type);
  double noise = 1;

  for (int step_number = 0; step_number < 4; ++step_number) {
    const koala::Loss loss(1.5 - 0.1 * step_number, 2.5);
    noise = koala::noise_update(0.9, loss, noise);
    koala::Step step(loss.mean, noise);

    koala::Tensor tensor = whole.tensor();
    tensor.set_copy(expected_bf16_copy);
    const koala::TensorReport report = koala::step_tensor(step, tensor);
    expect(report.outcome == (step_number == 0 ? KOALA_OUTCOME_FIRST_STEP : KOALA_OUTCOME_STEPPED), name + ": outcome");
    expect(whole.scalars.steps == step_number + 1, name + ": steps");

    std::array<koala::Tensor, 1> list{listed.tensor()};
    list[0].set_copy(f16_copy);
    koala::TensorReport reports[1];
    const koala::Report sum = koala::step_tensors(step, list, reports);
    expect(sum.stepped == 1 && sum.noise == noise && sum.backend == koala::fastest_backend(), name + ": sum");
    expect(same(report, reports[0]), name + ": reports");

    const koala::Tensor half = halved.tensor();
    const koala::Dots dots = koala::dots_tensor(step, half);
    expect(koala::apply_tensor(step, half, dots).innovation_variance == report.innovation_variance, name + ": apply");

    koala::Tensor lent = exchanged.tensor();
    lent.lend_gradient(exchanged.gradient);
    koala::step_tensor(step, lent);
    const bool swapped = lent.h == exchanged.gradient.data();
    expect(swapped == (state_type == KOALA_STATE_TYPE_SAME), name + ": exchange");
    if constexpr (std::is_same_v<P, S>) {
      expect(lent.gradient == exchanged.h.data(), name + ": where the gradient is");
      std::swap(exchanged.gradient, exchanged.h);
    }

    koala::Parameters given(number, kept.parameters, kept.gradient);
    given.set_copy(bf16_copy);
    const koala::Report found = optimizer.step(loss, {given}, reports);
    expect(found.step == static_cast<std::uint64_t>(step_number) + 1 && found.stepped == 1, name + ": report");
    expect(same(report, reports[0]), name + ": the optimizer's report");
    expect(optimizer.noise() == noise, name + ": noise");
    optimizer.state<S>(number, kept.v, kept.h);
    kept.scalars = optimizer.scalars(number);

    expect(listed == whole, name + ": a list");
    expect(halved == whole, name + ": halves");
    expect(exchanged == whole, name + ": an exchange");
    expect(kept == whole, name + ": an optimizer");
    for (std::size_t place = 0; place < length; ++place) {
      expect(bf16_copy[place].bits == expected_bf16_copy[place].bits, name + ": a copy");
      if constexpr (std::is_floating_point_v<P>) {
        const double exact = whole.parameters[place];
        expect(std::abs(value_of(bf16_copy[place]) - exact) <= std::abs(exact) / 256, name + ": a copy in bf16");
        expect(std::abs(value_of(f16_copy[place]) - exact) <= std::abs(exact) / 2048 + 1e-7, name + ": a copy in f16");
      }
    }

    whole.new_gradient();
    listed.gradient = halved.gradient = exchanged.gradient = kept.gradient = whole.gradient;
  }
}

/// Many tensors, of all types, in two groups, above the number that the library works on together.
void many_are_as_one_by_one() {
  std::vector<Owned<float, float>> floats;
  std::vector<Owned<double, koala::bf16>> doubles;
  std::vector<Owned<OwnHalf, koala::f16>> halves;
  for (std::size_t place = 0; place < 14; ++place) {
    floats.emplace_back(place * 5);
    doubles.emplace_back(place + 1);
    halves.emplace_back(100 - place);
  }
  auto same_floats = floats, split_floats = floats;
  auto same_doubles = doubles, split_doubles = doubles;
  auto same_halves = halves, split_halves = halves;

  std::array<koala::Settings, 2> groups;
  groups[0].weight_decay = 0.01;
  groups[1].learning_rate = 0.5;
  for (int step_number = 0; step_number < 3; ++step_number) {
    koala::Step step(0.7, 1.25);
    step.set_groups(groups);
    step.norms = 1;
    std::vector<koala::Tensor> together, alone, split;
    const auto list = [](std::vector<koala::Tensor>& tensors, auto& first, auto& second, auto& third) {
      for (std::size_t place = 0; place < first.size(); ++place) {
        tensors.push_back(first[place].tensor(0));
        tensors.push_back(second[place].tensor(1));
        tensors.push_back(third[place].tensor(1));
      }
    };
    list(together, floats, doubles, halves);
    list(alone, same_floats, same_doubles, same_halves);
    list(split, split_floats, split_doubles, split_halves);

    expect(together[0].group == 0 && together[1].group == 1, "many: groups");

    std::vector<koala::TensorReport> reports(together.size()), split_reports(together.size());
    const koala::Report sum = koala::step_tensors(step, together, reports);
    for (std::size_t place = 0; place < alone.size(); ++place) {
      const koala::TensorReport report = koala::step_tensor(step, alone[place]);
      expect(same(report, reports[place]), "many: a report");
    }
    expect(reports[3].parameters_norm > 0 && reports[3].gradient_norm > 0, "many: norms");
    expect(sum.stepped == together.size() - 1 && sum.skipped == 1, "many: the sum, one being empty");
    std::vector<koala::Dots> dots(split.size());
    koala::dots_tensors(step, split, dots);
    expect(koala::apply_tensors(step, split, dots, split_reports).stepped == sum.stepped, "many: the sum of halves");
    koala::apply_tensors(step, koala::Span<koala::Tensor>(), {});

    for (std::size_t place = 0; place < floats.size(); ++place) {
      expect(floats[place] == same_floats[place] && floats[place] == split_floats[place], "many: float");
      expect(doubles[place] == same_doubles[place] && doubles[place] == split_doubles[place], "many: double");
      expect(halves[place] == same_halves[place] && halves[place] == split_halves[place], "many: half");
    }
  }
}

/// Two parts of a tensor, with the sum of their dots, step as the whole does, but for rounding.
void parts_are_as_the_whole() {
  Owned<float, float> whole(64);
  Owned<float, float> parts = whole;
  koala::Scalars right_scalars;
  const auto half = [](std::vector<float>& elements, std::size_t part) {
    return koala::Span<float>(elements.data() + 32 * part, 32);
  };
  for (int step_number = 0; step_number < 3; ++step_number) {
    const koala::Step step(1, 1);
    koala::Tensor tensor = whole.tensor();
    koala::step_tensor(step, tensor);
    const koala::Tensor left(half(parts.parameters, 0), half(parts.gradient, 0), half(parts.v, 0), half(parts.h, 0),
                             parts.scalars);
    const koala::Tensor right(half(parts.parameters, 1), half(parts.gradient, 1), half(parts.v, 1), half(parts.h, 1),
                              right_scalars);
    const koala::Dots dots = koala::dots_tensor(step, left) + koala::dots_tensor(step, right);
    koala::apply_tensor(step, left, dots);
    koala::apply_tensor(step, right, dots);
    for (std::size_t place = 0; place < 64; ++place)
      expect(std::abs(whole.parameters[place] - parts.parameters[place]) < 1e-5f, "parts: parameters");
    expect(same(parts.scalars, right_scalars), "parts: scalars");
  }
  koala::Dots dots;
  expect(dots.a == 0 && dots.gradient_squared == 0, "dots: zeros");
  dots.a = 1;
  dots.b = 2;
  dots.c = 3;
  dots.t = 4;
  dots.gradient_squared = 5;
  const koala::Dots sum = dots + dots;
  expect(sum.a == 2 && sum.b == 4 && sum.c == 6 && sum.t == 8 && sum.gradient_squared == 10, "dots: a sum");
  dots.gradient_squared = std::numeric_limits<double>::infinity();
  expect(std::isinf((sum + dots).gradient_squared), "dots: infinity stays");
}

void spans() {
  float array[3] = {1, 2, 3};
  const float constant[2] = {1, 2};
  std::vector<float> vector{1, 2};
  const std::array<double, 4> doubles{};
  static_assert(std::is_same_v<decltype(koala::Span(array)), koala::Span<float>>);
  static_assert(std::is_same_v<decltype(koala::Span(constant)), koala::Span<const float>>);
  static_assert(std::is_same_v<decltype(koala::Span(doubles)), koala::Span<const double>>);
  static_assert(std::is_same_v<decltype(koala::Span(array, 2)), koala::Span<float>>);
  static_assert(!std::is_constructible_v<koala::Span<float>, const std::vector<float>&>);
  static_assert(!std::is_constructible_v<koala::Span<float>, std::vector<float>>, "a temporary is not written");
  static_assert(!std::is_constructible_v<koala::Span<float>, std::vector<double>&>);
  static_assert(std::is_constructible_v<koala::Span<const float>, koala::Span<float>>);
  static_assert(std::is_trivially_copyable_v<koala::Span<float>>);
  koala::Span<float> span(vector);
  span[1] = 5;
  float sum = 0;
  for (float element : koala::Span<const float>(span)) sum += element;
  expect(sum == 6 && span.size() == 2 && !span.empty() && span.data() == vector.data(), "spans");
  std::vector<float, OwnAllocator<float>> allocated{1, 2};
  expect(koala::Span<float>(allocated).data() == allocated.data(), "spans: of another allocator");
  expect(koala::Span<float>().empty() && koala::Span<float>(array).size() == 3, "spans: lengths");
}

void versions_and_backends() {
  koala::check_version();
  expect(koala::version() == KOALA_VERSION, "version");
  expect(std::strlen(koala::status_text(KOALA_STATUS_LENGTH)) > 0, "status_text");
  bool scalar = false, fastest = false;
  for (const koala::BackendInfo& info : koala::backends()) {
    expect(std::string(info.name) == koala::backend_name(info.backend), "backends: a name");
    scalar |= info.backend == KOALA_BACKEND_SCALAR && info.present == 1;
    fastest |= info.backend == koala::fastest_backend() && info.present == 1;
    if (info.present == 1) {
      expect(koala::backend_by_name(info.name) == info.backend, "backend_by_name");
    } else {
      expect(std::strlen(info.absent_because) > 0, "backends: a reason");
      expect_error<koala::BackendError>(KOALA_STATUS_ABSENT_BACKEND, {info.name}, "an absent backend",
                                        [&] { koala::backend_by_name(info.name); });
    }
  }
  expect(scalar && fastest && koala::backends().size() >= 5, "backends");
  expect(koala::backend_name(static_cast<koala::Backend>(99)) == nullptr, "backend_name");
  expect(koala::BackendInfo(KOALA_BACKEND_FASTEST).backend == koala::fastest_backend(), "BackendInfo");
  expect_error<koala::BackendError>(KOALA_STATUS_UNKNOWN_BACKEND, {"eucalyptus", "scalar"}, "an unknown backend",
                                    [] { koala::backend_by_name("eucalyptus"); });
  setenv("KOALA_BACKEND", "scalar", 1);
  expect(koala::backend_from_environment() == KOALA_BACKEND_SCALAR, "backend_from_environment");
  setenv("KOALA_BACKEND", "bamboo", 1);
  expect_error<koala::BackendError>(KOALA_STATUS_UNKNOWN_BACKEND, {"bamboo"}, "the environment's backend",
                                    [] { koala::backend_from_environment(); });
  unsetenv("KOALA_BACKEND");
}

void losses_and_defaults() {
  const auto halves = std::vector<koala::f16>{{0x3c00}, {0x4200}};
  const auto brains = std::array<koala::bf16, 2>{{{0x3f80}, {0x4040}}};
  const double doubles[] = {1, 3};
  for (const koala::Loss& loss : {koala::Loss::from_samples(doubles), koala::Loss::from_samples(halves),
                                  koala::Loss::from_samples(brains),
                                  koala::Loss::from_samples(std::vector<float>{1, 3})})
    expect(loss.mean == 2 && loss.second_moment == 5, "from_samples");
  expect_error<koala::ArgumentError>(KOALA_STATUS_NO_SAMPLES, {"sample"}, "no samples",
                                     [] { koala::Loss::from_samples(std::vector<float>()); });
  expect(koala::noise_update(0.75, {1, 5}, 1) == 2, "noise_update");
  expect_error<koala::SettingError>(KOALA_STATUS_SETTING, {"2"}, "a decay of 2",
                                    [] { koala::noise_update(2, {1, 5}, 1); });

  const koala::Settings settings;
  expect(settings.size == sizeof(koala_settings) && settings.initial_variance == 0.1, "Settings");
  const koala::Config config;
  expect(config.size == sizeof(koala_config) && config.noise_decay == 0.9 && config.threads == 1, "Config");
  const koala::Step step;
  expect(step.size == sizeof(koala_step) && step.noise == 1 && step.groups == nullptr, "Step");
  expect(koala::Report().size == sizeof(koala_report) && koala::Tensor().size == sizeof(koala_tensor) &&
             koala::Parameters().size == sizeof(koala_parameters) && koala::Scalars().steps == 0,
         "sizes");
}

/// Every status has its class; what koala.h does not know is an Error.
void classes() {
  const auto is = [](auto expected, std::initializer_list<koala::Status> statuses) {
    for (koala::Status status : statuses)
      expect_error<decltype(expected)>(status, {}, koala::status_text(status), [&] { koala::check(status); });
  };
  koala::check(KOALA_STATUS_OK);
  is(koala::ArgumentError(KOALA_STATUS_OK, ""),
     {KOALA_STATUS_NULL_POINTER, KOALA_STATUS_MISALIGNED, KOALA_STATUS_OVERLAP, KOALA_STATUS_STRUCT_SIZE,
      KOALA_STATUS_UNKNOWN_VALUE, KOALA_STATUS_LENGTH, KOALA_STATUS_TYPE, KOALA_STATUS_ENCODING,
      KOALA_STATUS_NO_SAMPLES, KOALA_STATUS_HALVES, KOALA_STATUS_NOT_PREDICTED});
  is(koala::SettingError(KOALA_STATUS_OK, ""), {KOALA_STATUS_SETTING});
  is(koala::NonFiniteError(KOALA_STATUS_OK, ""), {KOALA_STATUS_NON_FINITE});
  is(koala::BreakdownError(KOALA_STATUS_OK, ""), {KOALA_STATUS_BREAKDOWN});
  is(koala::TensorError(KOALA_STATUS_OK, ""),
     {KOALA_STATUS_UNKNOWN_TENSOR, KOALA_STATUS_DUPLICATE_TENSOR, KOALA_STATUS_UNKNOWN_GROUP});
  is(koala::BackendError(KOALA_STATUS_OK, ""), {KOALA_STATUS_UNKNOWN_BACKEND, KOALA_STATUS_ABSENT_BACKEND});
  is(koala::DeviceError(KOALA_STATUS_OK, ""),
     {KOALA_STATUS_ABSENT_DEVICE, KOALA_STATUS_FOREIGN_DEVICE, KOALA_STATUS_DRIVER});
  is(koala::MemoryError(KOALA_STATUS_OK, ""), {KOALA_STATUS_MEMORY});
  is(koala::ThreadsError(KOALA_STATUS_OK, ""), {KOALA_STATUS_THREADS});
  is(koala::FileError(KOALA_STATUS_OK, ""), {KOALA_STATUS_FILE});
  is(koala::CheckpointError(KOALA_STATUS_OK, ""),
     {KOALA_STATUS_DAMAGED, KOALA_STATUS_NEWER, KOALA_STATUS_MISMATCH});
  is(koala::VersionError(KOALA_STATUS_OK, ""), {KOALA_STATUS_VERSION});
  is(koala::LibraryError(KOALA_STATUS_OK, ""), {KOALA_STATUS_PANIC, KOALA_STATUS_POISONED});
  is(koala::Error(KOALA_STATUS_OK, ""), {static_cast<koala::Status>(99)});
}

void errors_name_tensor_and_numbers() {
  std::vector<float> three{1, 2, 3}, gradient{1, 1, 1}, v(3), h(3), two(2);
  std::vector<double> wide(3);
  std::vector<koala::bf16> copy(2);
  koala::Scalars scalars;
  using koala::ArgumentError;

  expect_error<ArgumentError>(KOALA_STATUS_LENGTH, {"the tensor", "3", "2", "gradient"}, "a short gradient",
                              [&] { koala::Tensor(three, two, v, h, scalars); });
  expect_error<ArgumentError>(KOALA_STATUS_LENGTH, {"3", "2", "in v"}, "a short v",
                              [&] { koala::Tensor(three, gradient, two, h, scalars); });
  expect_error<ArgumentError>(KOALA_STATUS_LENGTH, {"3", "2", "in h"}, "a short h",
                              [&] { koala::Tensor(three, gradient, v, two, scalars); });
  koala::Tensor tensor(three, gradient, v, h, scalars);
  expect_error<ArgumentError>(KOALA_STATUS_LENGTH, {"3", "2", "copy"}, "a short copy", [&] { tensor.set_copy(copy); });
  expect_error<ArgumentError>(KOALA_STATUS_TYPE, {"gradient"}, "a wide gradient", [&] { tensor.set_gradient(wide); });
  tensor.lend_gradient(gradient);
  expect(tensor.exchange == 1, "lend_gradient");
  tensor.set_gradient(gradient);
  expect(tensor.exchange == 0, "set_gradient takes nothing more");
  tensor.group = 4;
  expect_error<koala::TensorError>(KOALA_STATUS_UNKNOWN_GROUP, {"4"}, "a tensor of no group",
                                   [&] { koala::step_tensor({}, tensor); });
  tensor.group = 0;
  expect_error<ArgumentError>(KOALA_STATUS_OVERLAP, {"parameters", "v"}, "an overlap", [&] {
    koala::Tensor overlapping(three, gradient, three, h, scalars);
    koala::step_tensor({}, overlapping);
  });
  expect_error<ArgumentError>(KOALA_STATUS_LENGTH, {"1", "2", "reports"}, "too many reports", [&] {
    koala::TensorReport reports[2];
    koala::step_tensors({}, koala::Span(&tensor, 1), reports);
  });
  expect_error<ArgumentError>(KOALA_STATUS_LENGTH, {"1", "0", "dots"}, "too few dots",
                              [&] { koala::dots_tensors({}, koala::Span(&tensor, 1), {}); });
  expect_error<ArgumentError>(KOALA_STATUS_LENGTH, {"1", "0", "dots"}, "too few dots to apply",
                              [&] { koala::apply_tensors({}, koala::Span(&tensor, 1), {}); });

  koala::Step strict(0.5, 1);
  strict.on_non_finite = KOALA_ON_NON_FINITE_ERROR;
  strict.on_breakdown = KOALA_ON_BREAKDOWN_ERROR;
  gradient[1] = std::numeric_limits<float>::quiet_NaN();
  expect_error<koala::NonFiniteError>(KOALA_STATUS_NON_FINITE, {"gradient"}, "a gradient of NaN",
                                      [&] { koala::step_tensor(strict, tensor); });
  gradient[1] = 1;
  koala::step_tensor(strict, tensor);
  for (std::size_t place = 0; place < 3; ++place) v[place] = -1000 * h[place];
  scalars.h_v = -1000 * scalars.h_h;
  expect_error<koala::BreakdownError>(KOALA_STATUS_BREAKDOWN, {}, "a breakdown",
                                      [&] { koala::step_tensor(strict, tensor); });

  koala::Settings settings;
  settings.learning_rate = -1;
  koala::Optimizer optimizer;
  expect_error<koala::SettingError>(KOALA_STATUS_SETTING, {"-1", "learning"}, "a rate of -1",
                                    [&] { optimizer.add_group(settings); });
  settings.learning_rate = 1;
  settings.variant = static_cast<koala_variant>(7);
  expect_error<ArgumentError>(KOALA_STATUS_UNKNOWN_VALUE, {"7"}, "a variant of 7",
                              [&] { optimizer.add_group(settings); });
  settings.size = 5;
  expect_error<ArgumentError>(KOALA_STATUS_STRUCT_SIZE, {"5"}, "a size of 5", [&] { optimizer.add_group(settings); });
  const koala::Group group = optimizer.add_group();
  const std::size_t weight = optimizer.add_tensor<float>("weight", 3, group);
  expect_error<koala::TensorError>(KOALA_STATUS_DUPLICATE_TENSOR, {"weight"}, "a tensor twice",
                                   [&] { optimizer.add_tensor<float>("weight", 3, group); });
  expect_error<koala::TensorError>(KOALA_STATUS_UNKNOWN_GROUP, {"9"}, "no group",
                                   [&] { optimizer.add_tensor<float>("bias", 3, koala::Group{9}); });
  expect_error<ArgumentError>(KOALA_STATUS_ENCODING, {}, "a name with a NUL",
                              [&] { optimizer.add_tensor<float>(std::string("a\0b", 3), 3, group); });
  expect_error<koala::MemoryError>(KOALA_STATUS_MEMORY, {"large"}, "a tensor of 2^50",
                                   [&] { optimizer.add_tensor<float>("large", std::size_t{1} << 50, group); });
  expect_error<ArgumentError>(KOALA_STATUS_LENGTH, {"tensor 0", "3", "2", "gradient"}, "a short gradient of parameters",
                              [&] { koala::Parameters(weight, three, two); });
  expect_error<ArgumentError>(KOALA_STATUS_LENGTH, {"weight", "3", "2"}, "short parameters",
                              [&] { optimizer.step({1, 1}, {{weight, two, std::vector<float>(2)}}); });
  expect_error<ArgumentError>(KOALA_STATUS_TYPE, {"weight"}, "wide parameters",
                              [&] { optimizer.step({1, 1}, {{weight, wide, std::vector<double>(3)}}); });
  expect_error<ArgumentError>(KOALA_STATUS_OVERLAP, {"weight"}, "parameters that overlap",
                              [&] { optimizer.step({1, 1}, {{weight, three, three}}); });
  expect_error<koala::TensorError>(KOALA_STATUS_UNKNOWN_TENSOR, {"5"}, "no tensor 5",
                                   [&] { optimizer.step({1, 1}, {{5, three, gradient}}); });
  expect_error<ArgumentError>(KOALA_STATUS_LENGTH, {"weight", "4", "12"}, "a short state",
                              [&] { optimizer.state<float>(weight, koala::Span(v.data(), 1), {}); });
  expect_error<ArgumentError>(KOALA_STATUS_LENGTH, {"3", "2", "in h"}, "v longer than h",
                              [&] { optimizer.state<float>(weight, v, two); });
  expect(koala::last_error().find("bytes") != std::string::npos, "last_error");
}

void optimizers() {
  static_assert(!std::is_copy_constructible_v<koala::Optimizer> && !std::is_copy_assignable_v<koala::Optimizer>);
  static_assert(std::is_nothrow_move_constructible_v<koala::Optimizer>);
  static_assert(std::is_nothrow_move_assignable_v<koala::Optimizer>);
  koala::Config config;
  config.backend = KOALA_BACKEND_SCALAR;
  config.noise = KOALA_NOISE_FIXED;
  config.initial_noise = 2;
  config.threads = 2;
  config.norms = 1;
  koala::Optimizer first(config);
  koala::Settings settings;
  settings.weight_decay = 0.25;
  const koala::Group weights = first.add_group(settings), biases = first.add_group();
  const std::size_t weight = first.add_tensor<float>("weight", 3, weights, KOALA_STATE_TYPE_BF16);
  const std::size_t bias = first.add_tensor<double>("bias", 2, biases);
  first.set_learning_rate(biases, 0.5);
  first.set_threads(1);
  settings.process_noise = 0;
  first.set_settings(weights, settings);
  expect(first.settings(weights).weight_decay == 0.25 && first.settings(weights).process_noise == 0 &&
             first.settings(biases).learning_rate == 0.5,
         "settings");
  expect(first.tensor_count() == 2 && first.find_tensor("bias") == bias, "find_tensor");
  expect(first.tensor_name(weight) == "weight", "tensor_name");
  expect(first.backend() == KOALA_BACKEND_SCALAR && first.noise() == 2, "backend and noise");
  expect(first.handle() != nullptr, "handle");
  expect_error<koala::TensorError>(KOALA_STATUS_UNKNOWN_TENSOR, {"tail"}, "no tensor of that name",
                                   [&] { first.find_tensor("tail"); });
  expect_error<koala::TensorError>(KOALA_STATUS_UNKNOWN_TENSOR, {"7"}, "tensor_name", [&] { first.tensor_name(7); });

  std::string heard;
  first.set_log([&heard](std::string_view text) { heard += text; });
  koala::Optimizer second(std::move(first));
  expect(first.handle() == nullptr, "a move leaves nothing");
  expect_error<koala::ArgumentError>(KOALA_STATUS_NULL_POINTER, {"optimizer"}, "moved from",
                                     [&] { first.add_group(); });
  koala::Optimizer third;
  third.set_log([&heard](std::string_view) { heard = "the wrong log"; });
  third = std::move(second);

  std::vector<float> theta{1, 2, 3}, gradient{1, 1, 1};
  double bias_theta[2] = {1, 2}, bias_gradient[2] = {0.5, std::numeric_limits<double>::infinity()};
  std::vector<koala::Parameters> given;
  given.emplace_back(weight, theta, gradient);
  given.emplace_back(bias, bias_theta, bias_gradient);
  std::array<koala::TensorReport, 2> reports;
  koala::Report report = third.step({0.5, 0.3}, given, reports);
  expect(report.stepped == 1 && report.first_steps == 1 && report.non_finite == 1, "report");
  expect(reports[0].outcome == KOALA_OUTCOME_FIRST_STEP && reports[1].outcome == KOALA_OUTCOME_NON_FINITE, "reports");
  expect(std::abs(reports[0].gradient_norm - std::sqrt(3)) < 1e-6, "norms");
  expect(heard.find("bias") != std::string::npos, "the log hears: " + heard);
  expect(theta[0] != 1 && bias_theta[0] == 1, "what is stepped");

  std::array<koala::bf16, 3> v{}, h{};
  std::vector<std::byte> bytes(6);
  third.state<koala::bf16>(weight, v, h);
  third.state<std::byte>(weight, {}, bytes);
  expect(std::memcmp(bytes.data(), h.data(), 6) == 0 && v[0].bits != 0 && h[0].bits != 0, "state");
  expect(third.scalars(weight).steps == 1, "scalars");
  third.restart(weight);
  expect(third.scalars(weight).steps == 0, "restart");

  // An exception of the log comes after the step, and once.
  third.set_log([](std::string_view text) { throw std::out_of_range(std::string(text)); });
  koala::Optimizer fourth = std::move(third);
  const std::vector<float> before = theta;
  try {
    fourth.step({0.5, 0.3}, given);
    expect(false, "the log's exception is thrown");
  } catch (const std::out_of_range& error) {
    expect(std::string(error.what()).find("bias") != std::string::npos, "the log's exception");
  }
  expect(!same(before, theta), "the step is made even so");
  fourth.set_log(nullptr);
  heard.clear();
  const std::size_t allocations_before = allocations;
  report = fourth.step({0.5, 0.3}, given, reports);
  report = fourth.step({0.5, 0.3}, {given[0], given[1]});
  const std::size_t allocations_after = allocations;
  expect(allocations_after == allocations_before, "a step allocates nothing");
  expect(report.step == 4 && heard.empty(), "no log");

  // All that is given is finite, and what would be written is not.
  settings.initial_variance = settings.process_noise = 1e38;
  koala::Optimizer fifth;
  fifth.set_log([&heard](std::string_view text) { heard += text; });
  const std::size_t large = fifth.add_tensor<float>("large", 3, fifth.add_group(settings));
  gradient = {4, 4, 4};
  expect(fifth.step({0.5, 0.3}, {{large, theta, gradient}}).non_finite == 1, "overflow");
  expect(heard.find("an element of its new state or parameters") != std::string::npos, "the log hears: " + heard);
}

/// KOALA-M by an Optimizer, and by itself.
void methods() {
  koala::Method own(KOALA_METHOD_KIND_KOALA_M);
  own.velocity_decay = 0.5;
  koala::Config config;
  config.method = &own;
  config.noise = KOALA_NOISE_FIXED;
  config.gradient_factor = 0.5;
  koala::Optimizer optimizer(config);
  const std::size_t weight = optimizer.add_tensor<double>("weight", 3, optimizer.add_group());
  const std::vector<double> gradient{1, 2, 3};
  std::vector<double> theirs{1, 2, 3}, ours = theirs, v(3), h(3);
  std::vector<koala::Parameters> given;
  given.emplace_back(weight, theirs, gradient);
  expect_error<koala::ArgumentError>(KOALA_STATUS_NOT_PREDICTED, {"KOALA-M"}, "no prediction",
                                     [&] { optimizer.step({0.5, 1}, given); });
  koala::Scalars scalars;
  koala::Tensor tensor(ours, gradient, v, h, scalars);
  koala::Step step(0.5, 1);
  step.method = &own;
  step.gradient_factor = 0.5;
  for (int number = 0; number < 3; ++number) {
    optimizer.predict(given);
    optimizer.step({0.5, 1}, given);
    const koala::Prediction found = koala::predict_tensors(step, koala::Span(&tensor, 1));
    own.predict(found.distance_squared, found.parameters);
    own.correct(koala::step_tensors(step, koala::Span(&tensor, 1)).gain);
  }
  expect(same(ours, theirs) && ours[0] != 1, "KOALA-M by itself");
  const koala::Method kept = optimizer.method();
  expect(kept.kind == KOALA_METHOD_KIND_KOALA_M && kept.variance == own.variance && kept.covariance == own.covariance,
         "method");
  const koala::Method other(KOALA_METHOD_KIND_SGD);
  expect_error<koala::ArgumentError>(KOALA_STATUS_METHOD, {"sgd", "koala-m"}, "another method for a group",
                                     [&] { optimizer.set_method(koala::Group(), other); });
  optimizer.set_scaling(0.25);
  expect_error<koala::SettingError>(KOALA_STATUS_SETTING, {"factor", "-1"}, "a factor of -1",
                                    [&] { optimizer.set_scaling(-1); });
  expect_error<koala::ArgumentError>(KOALA_STATUS_HALVES, {"halves"}, "halves of KOALA-M",
                                     [&] { koala::dots_tensor(step, tensor); });
}

/// What one optimizer saves, another one goes on from.
void checkpoints(const std::string& path) {
  const auto make = [](std::initializer_list<const char*> names) {
    koala::Optimizer made;
    const koala::Group group = made.add_group();
    for (const char* name : names) made.add_tensor<float>(name, 3, group);
    return made;
  };
  const std::vector<float> gradient{1, 2, 3};
  std::vector<float> ours{1, 2, 3}, theirs = ours;
  koala::Optimizer first = make({"weight", "bias"}), second = make({"bias", "weight"});
  first.step({0.5, 0.3}, {{first.find_tensor("weight"), ours, gradient}});
  first.save(path);
  theirs = ours;
  const koala::Loaded loaded = second.load(path);
  expect(loaded.tensors == 2 && loaded.differences == 0 && second.differences().empty(), "all is loaded");
  first.step({0.5, 0.3}, {{first.find_tensor("weight"), ours, gradient}});
  const koala::Report report = second.step({0.5, 0.3}, {{second.find_tensor("weight"), theirs, gradient}});
  expect(same(ours, theirs) && report.step == 2, "a run goes on");

  koala::Optimizer third = make({"weight", "head"});
  expect_error<koala::CheckpointError>(KOALA_STATUS_MISMATCH, {"another model", "bias", "head"}, "another model",
                                       [&] { third.load(path); });
  const koala::Loaded fitting = third.load(path, KOALA_LOADING_WHAT_FITS);
  expect(fitting.tensors == 1 && fitting.differences == 2 && third.scalars(0).steps == 1, "what fits is loaded");
  expect(third.differences() == "tensor \"head\" is only in the optimizer\ntensor \"bias\" is only in the checkpoint\n",
         "differences");
  expect_error<koala::FileError>(KOALA_STATUS_FILE, {"no/such/folder"}, "no such folder",
                                 [&] { first.save("no/such/folder/run"); });
  expect_error<koala::FileError>(KOALA_STATUS_FILE, {"no/such/file"}, "no such file",
                                 [&] { first.load("no/such/file"); });
  expect_error<koala::ArgumentError>(KOALA_STATUS_ENCODING, {}, "a path with a NUL",
                                     [&] { first.save(std::string("a\0b", 3)); });
}

}  // namespace

int main(int, char** arguments) {
  try {
    spans();
    versions_and_backends();
    losses_and_defaults();
    classes();
    all_ways_agree<float, float>("float");
    all_ways_agree<float, koala::bf16>("float, bf16");
    all_ways_agree<double, double>("double");
    all_ways_agree<double, float>("double, float");
    all_ways_agree<double, koala::bf16>("double, bf16");
    all_ways_agree<koala::bf16, koala::bf16>("bf16");
    all_ways_agree<koala::bf16, float>("bf16, float");
    all_ways_agree<koala::f16, koala::f16>("f16");
    all_ways_agree<koala::f16, float>("f16, float");
    all_ways_agree<koala::f16, koala::bf16>("f16, bf16");
    all_ways_agree<OwnHalf, float>("somebody else's half, float");
    many_are_as_one_by_one();
    parts_are_as_the_whole();
    errors_name_tensor_and_numbers();
    optimizers();
    methods();
    checkpoints(std::string(arguments[0]) + ".safetensors");
  } catch (const std::exception& error) {
    expect(false, std::string("an exception that nobody expected: ") + error.what());
  }
  if (failures == 0) std::puts("koala.hpp: all is well");
  return failures == 0 ? 0 : 1;
}
