// A step on a GPU, in three kernels: the dot products of all tensors of a group, the scalar recursion of each, and the
// update of all. The arithmetic is that of src/passes and of src/methods/koala_plus_plus.rs and reach.rs, operation by
// operation, in the shape of src/types/contract.rs: so the bits are the CPU's.
//
// A contract's block of 1024 elements is half a warp's work, a lane each. A thread block takes a chunk of eight such
// blocks, by a map of chunks, so that one large tensor and many small ones both fill the device.
//
// structs.rs has the same structures for the host. In tests, a C++ compiler translates this file too: see shim/.

#include <cuda_fp16.h>

// The contract's numbers, which a test compares with src/types/contract.rs.
constexpr unsigned LANES = 16;
constexpr unsigned RUN_ROWS = 8;
constexpr unsigned BLOCK = 1024;
constexpr double SKIP_GRADIENT_NORM = 1e-9;
constexpr double LEAST_FACTOR = 1e-37;

constexpr unsigned RUN = LANES * RUN_ROWS;
constexpr unsigned CHUNK_BLOCKS = 8;
constexpr unsigned CHUNK = CHUNK_BLOCKS * BLOCK;
constexpr unsigned THREADS = CHUNK_BLOCKS * LANES;

// ---- What the host and the kernels share.

using Length = unsigned long long;

enum ElementType : unsigned { F32, F64, BF16, F16, NONE };

enum Outcome : unsigned { STEPPED, FIRST_STEP, RESTARTED, SKIPPED, FROZEN, NON_FINITE, BREAKDOWN, WITHHELD, OUTCOMES };

enum Variant : unsigned { SYMMETRIC, VANILLA, DEFINITE };

struct Settings {
    double learning_rate, weight_decay, initial_variance, process_noise;
    double gamma;  // 0 but in the definite variant
    Variant variant;
    unsigned frozen;
    const void *device_learning_rate;  // null where the host has given it
    ElementType learning_rate_type;    // of what is on the device
    unsigned unused;
};

// As C has them, koala_scalars: they may be in the caller's memory.
struct Scalars {
    double h_h, h_v, innovation_variance, steps;
};

struct Tensor {
    void *parameters;
    const void *gradient;
    void *h;
    void *v;
    void *copy;  // the new parameters in half precision, where there is one
    const Settings *settings;
    Scalars *scalars;
    Length length;
    ElementType parameters_type, state_type, copy_type;
    unsigned first_chunk;  // of all tensors' chunks, and of their partial sums
};

struct Chunk {
    unsigned tensor;
    unsigned place;  // of this chunk among the tensor's
};

struct Plan {
    Scalars scalars;
    // Rounded to the arithmetic type; the gain is Q + γ.
    double weight_decay, keep, process_noise, mix, rate, initial_variance, gain, gradient_factor;
    unsigned begins;  // whether h = H and v = σ·H before the step
    unsigned unused;
};

struct Report {
    double innovation_variance, alpha, lambda, w;
    double gradient_norm, measurement_norm, parameters_norm;
    unsigned outcome, unused;
};

// What all tensors share.
struct Progress {
    double noise;                   // R, as the last step used it
    unsigned long long steps;       // those that took R forward
    double loss, next_noise;        // of the step that runs
    unsigned finite;                // whether the loss is
    unsigned counts[OUTCOMES];      // of the tensors of the step
    unsigned unused;
};

// The argument of each kernel.
struct Launch {
    const Tensor *tensors;
    const Chunk *chunks;
    double *partials;
    Plan *plans;
    Report *reports;
    Progress *progress;
    const void *device_mean, *device_second_moment;  // null where the host has given these:
    double mean, second_moment;
    double noise_decay;
    double gradient_factor, gradient_limit;
    // What the loss was multiplied by, and so the gradients; and whether that made one infinite, if it is not zero. Each
    // may be null.
    const void *device_scale, *device_found_infinite;
    ElementType loss_type, scaler_type;  // of what is on the device
    unsigned first_chunk, chunks_end;  // of this group
    unsigned first_tensor, tensors_end;
    unsigned begins, ends;             // whether the group is the step's first, its last
    unsigned fixed_noise, keep_all, restart, norms;  // the configuration
};

// The argument of the kernel that writes words between steps: of settings, of scalars where a filter restarts, and the
// addresses of gradients that have moved. As many as an argument has room for.
constexpr unsigned CHANGES = 255;
struct Change {
    unsigned long long *place;
    unsigned long long word;
};
struct Changes {
    Change changes[CHANGES];
    unsigned long long count;
};

// ---- Numbers whose every operation is rounded by itself, which nothing may fuse.

template <typename F> struct Number { F value; };
using Single = Number<float>;
using Double = Number<double>;

__device__ inline Single operator+(Single a, Single b) { return {__fadd_rn(a.value, b.value)}; }
__device__ inline Single operator-(Single a, Single b) { return {__fsub_rn(a.value, b.value)}; }
__device__ inline Single operator*(Single a, Single b) { return {__fmul_rn(a.value, b.value)}; }
__device__ inline Double operator+(Double a, Double b) { return {__dadd_rn(a.value, b.value)}; }
__device__ inline Double operator-(Double a, Double b) { return {__dsub_rn(a.value, b.value)}; }
__device__ inline Double operator*(Double a, Double b) { return {__dmul_rn(a.value, b.value)}; }
__device__ inline Double operator/(Double a, Double b) { return {__ddiv_rn(a.value, b.value)}; }
__device__ inline Double root(Double a) { return {__dsqrt_rn(a.value)}; }
__device__ inline bool is_finite(Double a) { return a.value * 0.0 == 0.0; }
__device__ inline Double widened(Single a) { return {static_cast<double>(a.value)}; }
__device__ inline Double widened(Double a) { return a; }

// ---- The stored types, and conversions that round once.

struct Bf16 { unsigned short bits; };
struct F16Bits { unsigned short bits; };

// What arithmetic on parameters of a type is done in.
template <typename P> struct ArithmeticOf { using Type = float; };
template <> struct ArithmeticOf<double> { using Type = double; };
template <typename P> using Arithmetic = typename ArithmeticOf<P>::Type;

__device__ inline float exact(float stored) { return stored; }
__device__ inline double exact(double stored) { return stored; }
__device__ inline float exact(Bf16 stored) { return __uint_as_float(static_cast<unsigned>(stored.bits) << 16); }
__device__ inline float exact(F16Bits stored) { return __half2float(__ushort_as_half(stored.bits)); }

// The float at or next to `value` whose last bit says whether anything was lost: to round that to a half type gives what
// rounding `value` itself would.
__device__ inline float round_to_odd(double value) {
    const float nearest = __double2float_rn(value);
    const double back = nearest;
    if (back == value || value != value) return nearest;
    const unsigned away_from_zero = fabs(back) > fabs(value);
    return __uint_as_float((__float_as_uint(nearest) - away_from_zero) | 1);
}

__device__ inline void round_into(float &stored, float value) { stored = value; }
__device__ inline void round_into(float &stored, double value) { stored = __double2float_rn(value); }
__device__ inline void round_into(double &stored, double value) { stored = value; }
__device__ inline void round_into(F16Bits &stored, float value) {
    stored.bits = __half_as_ushort(__float2half_rn(value));
}
__device__ inline void round_into(F16Bits &stored, double value) { round_into(stored, round_to_odd(value)); }
__device__ inline void round_into(Bf16 &stored, double value);
__device__ inline void round_into(Bf16 &stored, float value) {
    const unsigned bits = __float_as_uint(value), upper = bits >> 16;
    // The carry out of the lower half rounds the upper one; a NaN must not be carried into a number.
    stored.bits = value != value ? upper | 0x40 : (bits + 0x7fff + (upper & 1)) >> 16;
}
__device__ inline void round_into(Bf16 &stored, double value) { round_into(stored, round_to_odd(value)); }

template <typename T, typename F> __device__ T rounded(F value) {
    T stored;
    round_into(stored, value);
    return stored;
}

// Calls `work` with a value of the parameters' type and one of the state's.
template <typename Work> __device__ void in_types(const Tensor &tensor, Work work) {
    const bool bf16_state = tensor.state_type == BF16, f32_state = tensor.state_type == F32;
    switch (tensor.parameters_type) {
        case F32:
            if (bf16_state) work(float(), Bf16());
            else work(float(), float());
            break;
        case F64:
            if (bf16_state) work(double(), Bf16());
            else if (f32_state) work(double(), float());
            else work(double(), double());
            break;
        case BF16:
            if (f32_state) work(Bf16(), float());
            else work(Bf16(), Bf16());
            break;
        default:
            if (bf16_state) work(F16Bits(), Bf16());
            else if (f32_state) work(F16Bits(), float());
            else work(F16Bits(), F16Bits());
    }
}

// A double rounded to the tensor's arithmetic type.
__device__ inline double in_arithmetic(const Tensor &tensor, double value) {
    return tensor.parameters_type == F64 ? value : __double2float_rn(value);
}

// Whether H differs from g.
__device__ inline bool decays(const Tensor &tensor, const Settings &settings) {
    return in_arithmetic(tensor, settings.weight_decay) != 0.0;
}

// A number of the caller's.
__device__ double on_device(const void *place, ElementType type) {
    switch (type) {
        case F32: return *static_cast<const float *>(place);
        case F64: return *static_cast<const double *>(place);
        case BF16: return exact(*static_cast<const Bf16 *>(place));
        default: return exact(*static_cast<const F16Bits *>(place));
    }
}

__device__ inline double not_a_number() { return __longlong_as_double(0x7ff8000000000000); }

// ---- What becomes of a gradient's elements as they are loaded: src/passes/staging.rs.

// The host refuses factors that are out of range. Here, with one that the device computes, the gradient is no number.
__device__ inline double gradient_factor(const Launch &launch) {
    if (launch.device_scale == nullptr) return launch.gradient_factor;
    const Double scale = {on_device(launch.device_scale, launch.scaler_type)};
    const Double factor = Double{launch.gradient_factor} / scale;
    const bool good = factor.value >= LEAST_FACTOR && is_finite({__double2float_rn(factor.value)});
    return good ? factor.value : not_a_number();
}

template <typename F> struct Scaling {
    Number<F> factor, limit;

    __device__ Scaling(double factor, double limit) : factor{rounded<F>(factor)}, limit{rounded<F>(limit)} {}

    __device__ bool has_limit() const { return is_finite(widened(limit)); }

    // An element in the arithmetic type. One that is no number stays so.
    __device__ Number<F> limited(Number<F> x) const {
        if (x.value > limit.value) return limit;
        return x.value < -limit.value ? Number<F>{-limit.value} : x;
    }
};

// ---- The dot products.

// a = H·h, b = H·v, c = H·H, t = θ·θ, and g·g.
struct Sums {
    double a, b, c, t, g;
};
constexpr unsigned SUMS = 5;

// One lane of a run: its rows of products summed in the arithmetic type, then added to the lane's float64 sums; and,
// where there is a limit, the squares of the gradient without it. A row that begins within the tensor is filled up with
// zeros; those after it are none.
template <typename P, typename S, typename F>
__device__ void add_run(const Tensor &tensor, Length first, bool decays, bool reads_parameters, bool reads_state,
                        Number<F> weight_decay, const Scaling<F> &scaling, Double (&sums)[SUMS], Double &unlimited) {
    const P *const gradients = static_cast<const P *>(tensor.gradient);
    const P *const parameters = static_cast<const P *>(tensor.parameters);
    const S *const hs = static_cast<const S *>(tensor.h);
    const S *const vs = static_cast<const S *>(tensor.v);
    const unsigned lane = threadIdx.x % LANES;

    // All loads before the first sum, so that they are under way together.
    Number<F> g[RUN_ROWS], p[RUN_ROWS], h[RUN_ROWS], v[RUN_ROWS];
#pragma unroll
    for (unsigned row = 0; row < RUN_ROWS; ++row) {
        const Length i = first + row * LANES + lane;
        const bool inside = i < tensor.length;
        g[row].value = inside ? exact(gradients[i]) : F(0);
        p[row].value = inside && reads_parameters ? exact(parameters[i]) : F(0);
        h[row].value = inside && reads_state ? exact(hs[i]) : F(0);
        v[row].value = inside && reads_state ? exact(vs[i]) : F(0);
    }
    Number<F> run[SUMS] = {}, squares = {};
#pragma unroll
    for (unsigned row = 0; row < RUN_ROWS; ++row) {
        if (first + row * LANES >= tensor.length) break;
        g[row] = scaling.factor * g[row];
        if (scaling.has_limit()) {
            squares = squares + g[row] * g[row];
            g[row] = scaling.limited(g[row]);
        }
        const Number<F> measurement = decays ? g[row] + weight_decay * p[row] : g[row];
        run[0] = run[0] + measurement * h[row];
        run[1] = run[1] + measurement * v[row];
        run[2] = run[2] + measurement * measurement;
        run[3] = run[3] + p[row] * p[row];
        run[4] = run[4] + g[row] * g[row];
    }
#pragma unroll
    for (unsigned k = 0; k < SUMS; ++k) sums[k] = sums[k] + widened(run[k]);
    unlimited = unlimited + widened(squares);
}

// The sum of a block, in its first lane.
__device__ inline Double over_lanes(Double sum) {
    for (unsigned distance = LANES / 2; distance > 0; distance /= 2)
        sum = sum + Double{__shfl_down_sync(0xffffffff, sum.value, distance, LANES)};
    return sum;
}

// The step begins: its loss, its noise, and nothing counted yet.
__device__ void begin_step(const Launch &launch) {
    Progress &progress = *launch.progress;
    const bool given = launch.device_mean == nullptr;
    const Double mean = {given ? launch.mean : on_device(launch.device_mean, launch.loss_type)};
    const Double second_moment = {launch.device_second_moment == nullptr
                                      ? launch.second_moment
                                      : on_device(launch.device_second_moment, launch.loss_type)};
    const bool found_infinite = launch.device_found_infinite != nullptr &&
                                on_device(launch.device_found_infinite, launch.scaler_type) != 0.0;
    // The host refuses a second moment below zero. Here it can only be taken for no number.
    const bool finite = !found_infinite && is_finite(mean) && !(second_moment.value < 0.0) &&
                        (launch.fixed_noise || is_finite(second_moment));
    const Double noise = {progress.noise}, decay = {launch.noise_decay};
    const Double averaged = decay * noise + (Double{1.0} - decay) * second_moment;
    progress.loss = finite ? mean.value : not_a_number();
    progress.next_noise = finite && !launch.fixed_noise ? averaged.value : noise.value;
    progress.finite = finite;
    for (unsigned outcome = 0; outcome < OUTCOMES; ++outcome) progress.counts[outcome] = 0;
}

extern "C" __global__ void __launch_bounds__(THREADS) koala_dots(const Launch launch) {
    __shared__ double blocks[CHUNK_BLOCKS][SUMS];
    if (launch.begins && blockIdx.x == 0 && threadIdx.x == 0) begin_step(launch);
    const unsigned number = launch.first_chunk + blockIdx.x;
    if (number >= launch.chunks_end) return;
    const Chunk chunk = launch.chunks[number];
    const Tensor tensor = launch.tensors[chunk.tensor];
    const Settings settings = *tensor.settings;
    if (settings.frozen) return;
    const bool decay = decays(tensor, settings), reads_parameters = decay || launch.norms;
    const bool reads_state = tensor.scalars->steps != 0;

    Double sums[SUMS] = {}, unlimited = {};
    const unsigned block = threadIdx.x / LANES;
    bool has_limit = false;
    in_types(tensor, [&](auto p, auto s) {
        using P = decltype(p);
        using S = decltype(s);
        const Number<Arithmetic<P>> weight_decay = {rounded<Arithmetic<P>>(settings.weight_decay)};
        const Scaling<Arithmetic<P>> scaling(gradient_factor(launch), launch.gradient_limit);
        has_limit = scaling.has_limit();
        const Length begin = Length(chunk.place) * CHUNK + block * BLOCK, end = begin + BLOCK;
        for (Length run = begin; run < end && run < tensor.length; run += RUN)
            add_run<P, S>(tensor, run, decay, reads_parameters, reads_state, weight_decay, scaling, sums, unlimited);
    });

    // The tree over lanes, then that over the chunk's blocks. A block that is not there is 0, which changes no bit.
#pragma unroll
    for (unsigned k = 0; k < SUMS; ++k) sums[k] = over_lanes(sums[k]);
    unlimited = over_lanes(unlimited);
    // A limit is not to hide what is not finite.
    if (has_limit && !is_finite(unlimited)) sums[2] = sums[4] = unlimited;
    if (threadIdx.x % LANES == 0)
        for (unsigned k = 0; k < SUMS; ++k) blocks[block][k] = sums[k].value;
    __syncthreads();
    if (threadIdx.x < SUMS) {
        const unsigned k = threadIdx.x;
        Double tree[CHUNK_BLOCKS];
        for (unsigned i = 0; i < CHUNK_BLOCKS; ++i) tree[i].value = blocks[i][k];
        for (unsigned distance = 1; distance < CHUNK_BLOCKS; distance *= 2)
            for (unsigned i = 0; i + distance < CHUNK_BLOCKS; i += 2 * distance) tree[i] = tree[i] + tree[i + distance];
        launch.partials[Length(number) * SUMS + k] = tree[0].value;
    }
}

// ---- The scalar recursion.

// What is decided about one tensor.
struct Decision {
    Plan plan;
    Report report;
};

struct Dots {
    Double a, b, c, t, g;
};

__device__ inline Decision kept(Outcome outcome) {
    Decision decision = {};
    decision.report.outcome = outcome;
    return decision;
}

// Whether ‖g‖ ≥ ‖H‖ − wd·‖θ‖ shows that the gradient is not to be skipped, with room for the rounding of all three.
__device__ inline bool is_long(Double c, Double weight_decay, Double t) {
    const Double bound = {SKIP_GRADIENT_NORM};
    const Double rough = Double{2.1} * (weight_decay * weight_decay) * t + Double{9.0} * (bound * bound);
    if (c.value > rough.value) return true;
    return root(c).value > (Double{1.001} * weight_decay * root(t) + Double{2.0} * bound).value;
}

__device__ inline bool is_skipped(const Dots &dots, Double weight_decay) {
    if (dots.c.value == 0.0) return true;
    return !is_long(dots.c, weight_decay, dots.t) && root(dots.g).value < SKIP_GRADIENT_NORM;
}

// Q + γ.
__device__ inline Double gain_of(const Settings &settings) {
    return Double{settings.process_noise} + Double{settings.gamma};
}

__device__ Decision advance(const Tensor &tensor, const Settings &settings, const Progress &progress, Outcome outcome,
                            const Dots &dots, const Scalars &scalars) {
    const Double a = dots.a, b = dots.b, c = dots.c, t = dots.t;
    const Double x = {scalars.h_h}, y = {scalars.h_v}, s = {scalars.innovation_variance};
    const Double q = {settings.process_noise}, gamma = {settings.gamma};
    const Double learning_rate = {settings.learning_rate};
    const Double weight_decay = {settings.weight_decay}, loss = {progress.loss}, noise = {progress.next_noise};

    const Double lambda = (b + q * a) / s;
    const bool definite = settings.variant == DEFINITE;
    const Double alpha = (definite ? b : a) / (definite ? y : x);
    const Double over_x = (definite ? gamma * a : b) / x;
    Double w = {0.0};
    if (definite) w = {-over_x.value};
    else if (settings.variant == SYMMETRIC) w = over_x - (a * y) / (x * x);
    const Double keep = alpha - lambda;
    const Double mix = w - q * lambda;
    const Double h_v = (keep * b + gain_of(settings) * c) + mix * a;
    const Double innovation_variance = (h_v + q * c) + noise;
    const Double rate = (learning_rate * (loss + (Double{0.5} * weight_decay) * t)) / innovation_variance;

    Decision decision = {};
    decision.report.outcome = outcome;
    decision.report.innovation_variance = innovation_variance.value;
    decision.report.alpha = alpha.value;
    decision.report.lambda = lambda.value;
    decision.report.w = w.value;
    decision.plan.scalars = {c.value, h_v.value, innovation_variance.value, scalars.steps + 1};
    decision.plan.weight_decay = in_arithmetic(tensor, settings.weight_decay);
    decision.plan.keep = in_arithmetic(tensor, keep.value);
    decision.plan.process_noise = in_arithmetic(tensor, settings.process_noise);
    decision.plan.mix = in_arithmetic(tensor, mix.value);
    decision.plan.rate = in_arithmetic(tensor, rate.value);
    return decision;
}

// A decision with its soundness looked at: one that can't be carried out becomes one that leaves the tensor as it is.
__device__ Decision examined(const Tensor &tensor, const Settings &settings, const Decision &decision) {
    const Report &report = decision.report;
    const Plan &plan = decision.plan;
    for (double value : {report.alpha, report.lambda, report.w, plan.scalars.h_v, report.innovation_variance})
        if (!is_finite({value})) return kept(NON_FINITE);
    if (report.innovation_variance <= 0.0) {
        Decision breakdown = {};
        breakdown.report = report;
        breakdown.report.outcome = BREAKDOWN;
        return breakdown;
    }
    const double gain = in_arithmetic(tensor, gain_of(settings).value);
    for (double value : {plan.weight_decay, plan.keep, plan.process_noise, plan.mix, plan.rate, gain})
        if (!is_finite({value})) return kept(NON_FINITE);
    return decision;
}

// The filter before its first step, seen with h = H and v = σ·H.
__device__ Decision first_step(const Tensor &tensor, const Settings &settings, const Progress &progress,
                               Outcome outcome, Dots dots, double steps) {
    const Double x = dots.c;
    const Double y = Double{settings.initial_variance} * x;
    const Double s = (y + Double{settings.process_noise} * x) + Double{progress.next_noise};
    dots.a = x;
    dots.b = y;
    const double initial_variance = in_arithmetic(tensor, settings.initial_variance);
    if (!is_finite({initial_variance})) return kept(NON_FINITE);
    const Scalars scalars = {x.value, y.value, s.value, steps};
    Decision decision = examined(tensor, settings, advance(tensor, settings, progress, outcome, dots, scalars));
    decision.plan.initial_variance = initial_variance;
    decision.plan.begins = 1;
    return decision;
}

__device__ Decision decide(const Tensor &tensor, const Settings &settings, const Progress &progress, bool restart,
                           const Dots &dots, const Scalars &scalars) {
    const Double loss = {progress.loss}, noise = {progress.next_noise};
    for (Double value : {loss, noise, dots.c, dots.t, dots.a, dots.b})
        if (!is_finite(value)) return kept(NON_FINITE);
    if (is_skipped(dots, {settings.weight_decay})) return kept(SKIPPED);
    if (scalars.steps == 0) return first_step(tensor, settings, progress, FIRST_STEP, dots, scalars.steps);
    const Decision decision = examined(tensor, settings, advance(tensor, settings, progress, STEPPED, dots, scalars));
    if (decision.report.outcome == BREAKDOWN && restart)
        return first_step(tensor, settings, progress, RESTARTED, dots, scalars.steps);
    return decision;
}

// Whether the tensor is written, unless all are to be kept.
__device__ inline bool is_step(unsigned outcome) {
    return outcome == STEPPED || outcome == FIRST_STEP || outcome == RESTARTED;
}

// ---- How far a step can take the elements from zero: src/methods/reach.rs and koala_plus_plus.rs.

// The largest number of a type.
__device__ inline double largest(ElementType type) {
    switch (type) {
        case F32: return 0x1.fffffep127;
        case F64: return 0x1.fffffffffffffp1023;
        case BF16: return 0x1.fep127;
        default: return 65504.0;
    }
}

// Up to where nobody looks at the elements.
__device__ inline double room_squared(ElementType type) {
    const Double room = Double{largest(type)} * Double{0.25};
    return fmin((room * room).value, largest(F64));
}

// Whether a step that is planned stays within that, given the scalars before it.
__device__ bool is_within(const Tensor &tensor, const Settings &settings, const Dots &dots, const Scalars &before,
                          const Plan &plan) {
    const Double keep = {plan.keep}, gain = {plan.gain}, mix = {plan.mix}, rate = {plan.rate};
    const Double x = {plan.begins ? dots.c.value : before.h_h}, steps = {plan.begins ? 0.0 : before.steps};
    const Double variance = Double{settings.initial_variance} + gain * steps;
    const Double old = (variance * variance) * x;
    const Double gained = (Double{2.0} * (gain * gain)) * dots.c;
    const Double next = ((keep * keep) * old + (mix * mix) * x) + gained;
    const Double state_squared = (dots.c + old) + Double{4.0} * next;
    const Double step_squared = (Double{4.0} * (rate * rate)) * next;
    return state_squared.value <= room_squared(tensor.state_type) &&
           step_squared.value <= room_squared(tensor.parameters_type);
}

// ---- The rule for one element.

// The numbers of a plan, in the arithmetic type.
template <typename F> struct Coefficients {
    Number<F> weight_decay, keep, process_noise, mix, rate, initial_variance, gain;
    bool decay, begins;

    __device__ explicit Coefficients(const Plan &plan)
        : weight_decay{rounded<F>(plan.weight_decay)}, keep{rounded<F>(plan.keep)},
          process_noise{rounded<F>(plan.process_noise)}, mix{rounded<F>(plan.mix)}, rate{rounded<F>(plan.rate)},
          initial_variance{rounded<F>(plan.initial_variance)}, gain{rounded<F>(plan.gain)},
          decay(plan.weight_decay != 0.0), begins(plan.begins) {}
};

// An element after the step, as it is stored.
template <typename P, typename S> struct Stepped {
    P parameter;
    S h, v;
};

// On a first step h and v are not read.
template <typename P, typename S, typename F>
__device__ Stepped<P, S> stepped(const Coefficients<F> &plan, const Scaling<F> &scaling, Number<F> g, Number<F> p,
                                 Number<F> h, Number<F> v) {
    const Number<F> gradient = scaling.limited(scaling.factor * g);
    const Number<F> measurement = plan.decay ? gradient + plan.weight_decay * p : gradient;
    const S stored_measurement = rounded<S>(measurement.value);
    if (plan.begins) {
        h.value = exact(stored_measurement);
        v.value = exact(rounded<S>((plan.initial_variance * measurement).value));
    }
    const Number<F> noise = plan.process_noise * measurement;
    const Number<F> product = (plan.keep * v + plan.gain * measurement) + plan.mix * h;
    const P parameter = rounded<P>((p - plan.rate * (product + noise)).value);
    return {parameter, stored_measurement, rounded<S>(product.value)};
}

__device__ inline bool is_finite_number(double value) { return is_finite({value}); }

// Whether this thread's elements of a tensor would not all stay finite. Nothing is written.
template <typename P, typename S>
__device__ bool overflows(const Tensor &tensor, const Plan &plan, double gradient_limit) {
    using F = Arithmetic<P>;
    const Coefficients<F> coefficients(plan);
    const Scaling<F> scaling(plan.gradient_factor, gradient_limit);
    const P *const gradients = static_cast<const P *>(tensor.gradient);
    const P *const parameters = static_cast<const P *>(tensor.parameters);
    const S *const hs = static_cast<const S *>(tensor.h);
    const S *const vs = static_cast<const S *>(tensor.v);
    for (Length i = threadIdx.x; i < tensor.length; i += THREADS) {
        const Number<F> g = {exact(gradients[i])}, p = {exact(parameters[i])};
        Number<F> h = {}, v = {};
        if (!coefficients.begins) {
            h.value = exact(hs[i]);
            v.value = exact(vs[i]);
        }
        const Stepped<P, S> next = stepped<P, S>(coefficients, scaling, g, p, h, v);
        const bool all_finite = is_finite_number(exact(next.h)) && is_finite_number(exact(next.v)) &&
                                is_finite_number(exact(next.parameter));
        // Where a parameter is not finite already, that stays the caller's.
        if (!all_finite && is_finite_number(p.value)) return true;
    }
    return false;
}

// ---- The decision about a tensor.

// The host refuses one below zero. Here, as with one that is no number, nothing of the tensor is written.
__device__ inline double learning_rate(const Settings &settings) {
    if (settings.device_learning_rate == nullptr) return settings.learning_rate;
    const double found = on_device(settings.device_learning_rate, settings.learning_rate_type);
    return found < 0.0 ? not_a_number() : found;
}

// A thread block for each tensor.
extern "C" __global__ void __launch_bounds__(THREADS) koala_recursion(const Launch launch) {
    const unsigned number = launch.first_tensor + blockIdx.x;
    if (number >= launch.tensors_end) return;
    const Tensor tensor = launch.tensors[number];
    Settings settings = *tensor.settings;

    // The tree over chunks, whose blocks are whole subtrees, in place.
    double *const partials = launch.partials + Length(tensor.first_chunk) * SUMS;
    const unsigned chunks = settings.frozen ? 0 : (tensor.length + CHUNK - 1) / CHUNK;
    for (unsigned distance = 1; distance < chunks; distance *= 2) {
        for (unsigned i = threadIdx.x * 2 * distance; i + distance < chunks; i += THREADS * 2 * distance)
            for (unsigned k = 0; k < SUMS; ++k) {
                double &left = partials[i * SUMS + k];
                left = (Double{left} + Double{partials[(i + distance) * SUMS + k]}).value;
            }
        __syncthreads();
    }
    __shared__ Plan tried;
    __shared__ bool is_tried, is_overflow;
    Decision decision = kept(FROZEN);
    Dots all = {};
    if (threadIdx.x == 0) is_tried = is_overflow = false;
    if (threadIdx.x == 0 && !settings.frozen) {
        const Scalars scalars = *tensor.scalars;
        const bool begins = scalars.steps == 0, decay = decays(tensor, settings);
        settings.learning_rate = learning_rate(settings);
        if (chunks != 0) all = {{partials[0]}, {partials[1]}, {partials[2]}, {partials[3]}, {partials[4]}};
        const Double none = {0.0};
        const Dots dots = {begins ? none : all.a, begins ? none : all.b, all.c, decay ? all.t : none, all.g};
        decision = decide(tensor, settings, *launch.progress, launch.restart, dots, scalars);
        // Here, and not in each block of the update, as it is a division.
        decision.plan.gradient_factor = in_arithmetic(tensor, gradient_factor(launch));
        decision.plan.gain = in_arithmetic(tensor, gain_of(settings).value);
        is_tried = is_step(decision.report.outcome) && !is_within(tensor, settings, dots, scalars, decision.plan);
        tried = decision.plan;
    }
    __syncthreads();
    if (is_tried) {
        // All threads look, before anything is written.
        in_types(tensor, [&](auto p, auto s) {
            if (overflows<decltype(p), decltype(s)>(tensor, tried, launch.gradient_limit)) is_overflow = true;
        });
        __syncthreads();
    }
    if (threadIdx.x != 0) return;
    if (is_overflow) decision = kept(NON_FINITE);
    if (!settings.frozen) {
        decision.report.gradient_norm = root(all.g).value;
        decision.report.measurement_norm = root(all.c).value;
        decision.report.parameters_norm = root(all.t).value;
    }
    launch.plans[number] = decision.plan;
    launch.reports[number] = decision.report;
    atomicAdd(&launch.progress->counts[decision.report.outcome], 1u);
}

// ---- The update.

// Elements that a thread has in its registers at once.
constexpr unsigned TOGETHER = 4;

template <typename P> __device__ void write_copy(const Tensor &tensor, Length i, P parameter) {
    if (tensor.copy_type == BF16) static_cast<Bf16 *>(tensor.copy)[i] = rounded<Bf16>(exact(parameter));
    if (tensor.copy_type == F16) static_cast<F16Bits *>(tensor.copy)[i] = rounded<F16Bits>(exact(parameter));
}

// Up to `TOGETHER` elements, `THREADS` apart.
template <typename P, typename S, typename F>
__device__ void update(const Tensor &tensor, const Plan &plan, const Scaling<F> &scaling, Length first) {
    const Coefficients<F> coefficients(plan);
    const P *const gradients = static_cast<const P *>(tensor.gradient);
    P *const parameters = static_cast<P *>(tensor.parameters);
    S *const hs = static_cast<S *>(tensor.h);
    S *const vs = static_cast<S *>(tensor.v);

    Number<F> g[TOGETHER], p[TOGETHER], h[TOGETHER], v[TOGETHER];
#pragma unroll
    for (unsigned k = 0; k < TOGETHER; ++k) {
        const Length i = first + k * THREADS;
        if (i >= tensor.length) break;
        g[k].value = exact(gradients[i]);
        p[k].value = exact(parameters[i]);
        if (!coefficients.begins) {
            h[k].value = exact(hs[i]);
            v[k].value = exact(vs[i]);
        }
    }
#pragma unroll
    for (unsigned k = 0; k < TOGETHER; ++k) {
        const Length i = first + k * THREADS;
        if (i >= tensor.length) break;
        const Stepped<P, S> next = stepped<P, S>(coefficients, scaling, g[k], p[k], h[k], v[k]);
        vs[i] = next.v;
        hs[i] = next.h;
        parameters[i] = next.parameter;
        write_copy(tensor, i, next.parameter);
    }
}

// The step ends: the noise goes forward, unless all was kept. Blocks that run meanwhile read none of this.
__device__ void end_step(const Launch &launch, bool all_kept) {
    Progress &progress = *launch.progress;
    if (all_kept) {
        for (unsigned outcome : {STEPPED, FIRST_STEP, RESTARTED}) {
            progress.counts[WITHHELD] += progress.counts[outcome];
            progress.counts[outcome] = 0;
        }
    } else if (progress.finite) {
        progress.noise = progress.next_noise;
        progress.steps += 1;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) koala_update(const Launch launch) {
    const bool all_kept = launch.keep_all && launch.progress->counts[NON_FINITE] != 0;
    if (launch.ends && blockIdx.x == 0 && threadIdx.x == 0) end_step(launch, all_kept);
    if (blockIdx.x >= launch.chunks_end - launch.first_chunk) return;
    // The end first: it is what the cache still has of a group that is larger than it.
    const unsigned number = launch.chunks_end - 1 - blockIdx.x;
    const Chunk chunk = launch.chunks[number];
    Report &report = launch.reports[chunk.tensor];
    const Tensor tensor = launch.tensors[chunk.tensor];
    const Plan plan = launch.plans[chunk.tensor];
    // A plan to write has taken a step; that of any other outcome is zero.
    if (plan.scalars.steps == 0) return;
    if (chunk.place == 0 && threadIdx.x == 0) {
        if (all_kept) report.outcome = WITHHELD;
        else *tensor.scalars = plan.scalars;
    }
    if (all_kept) return;

    in_types(tensor, [&](auto p, auto s) {
        const Scaling<Arithmetic<decltype(p)>> scaling(plan.gradient_factor, launch.gradient_limit);
        const Length begin = Length(chunk.place) * CHUNK, end = begin + CHUNK;
        for (Length first = begin + threadIdx.x; first < end && first < tensor.length; first += TOGETHER * THREADS)
            update<decltype(p), decltype(s)>(tensor, plan, scaling, first);
    });
}

// ---- What changes between steps, without a copy that the host would have to wait for.

extern "C" __global__ void __launch_bounds__(THREADS) koala_change(const __grid_constant__ Changes changes) {
    for (unsigned i = threadIdx.x; i < changes.count; i += THREADS) *changes.changes[i].place = changes.changes[i].word;
}
