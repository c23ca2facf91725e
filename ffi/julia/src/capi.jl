# What of koala.h is used here: enums, structs and functions under their C names. test_signatures.py compares all of
# them with the header.

const libkoala = get(ENV, "KOALA_LIBRARY", Sys.iswindows() ? "koala" : "libkoala")

"`KOALA_VERSION` of the header that this was written for."
const KOALA_VERSION = 1000

const koala_status = Int32
const KOALA_STATUS_OK = 0

@enum koala_backend::Int32 begin
    KOALA_BACKEND_FASTEST = 0
    KOALA_BACKEND_SCALAR = 1
    KOALA_BACKEND_PORTABLE = 2
    KOALA_BACKEND_NEON = 3
    KOALA_BACKEND_AVX2 = 4
    KOALA_BACKEND_AVX512 = 5
end

@enum koala_variant::Int32 begin
    KOALA_VARIANT_SYMMETRIC = 0
    KOALA_VARIANT_VANILLA = 1
    KOALA_VARIANT_DEFINITE = 2
end

@enum koala_element_type::Int32 begin
    KOALA_ELEMENT_TYPE_F32 = 0
    KOALA_ELEMENT_TYPE_F64 = 1
    KOALA_ELEMENT_TYPE_BF16 = 2
    KOALA_ELEMENT_TYPE_F16 = 3
end

@enum koala_state_type::Int32 begin
    KOALA_STATE_TYPE_SAME = 0
    KOALA_STATE_TYPE_F32 = 1
    KOALA_STATE_TYPE_BF16 = 2
end

@enum koala_copy_type::Int32 begin
    KOALA_COPY_TYPE_NONE = 0
    KOALA_COPY_TYPE_BF16 = 1
    KOALA_COPY_TYPE_F16 = 2
end

@enum koala_on_non_finite::Int32 begin
    KOALA_ON_NON_FINITE_KEEP_TENSOR = 0
    KOALA_ON_NON_FINITE_KEEP_ALL = 1
    KOALA_ON_NON_FINITE_ERROR = 2
    KOALA_ON_NON_FINITE_UNCHECKED = 3
end

@enum koala_on_breakdown::Int32 begin
    KOALA_ON_BREAKDOWN_RESTART = 0
    KOALA_ON_BREAKDOWN_SKIP = 1
    KOALA_ON_BREAKDOWN_ERROR = 2
end

@enum koala_outcome::Int32 begin
    KOALA_OUTCOME_STEPPED = 0
    KOALA_OUTCOME_FIRST_STEP = 1
    KOALA_OUTCOME_RESTARTED = 2
    KOALA_OUTCOME_SKIPPED = 3
    KOALA_OUTCOME_FROZEN = 4
    KOALA_OUTCOME_NON_FINITE = 5
    KOALA_OUTCOME_BREAKDOWN = 6
    KOALA_OUTCOME_WITHHELD = 7
end

@enum koala_method_kind::Int32 begin
    KOALA_METHOD_KIND_KOALA_PLUS_PLUS = 0
    KOALA_METHOD_KIND_KOALA_V = 1
    KOALA_METHOD_KIND_KOALA_M = 2
    KOALA_METHOD_KIND_ADAMW = 3
    KOALA_METHOD_KIND_SGD = 4
end

@enum koala_noise::Int32 begin
    KOALA_NOISE_AVERAGED = 0
    KOALA_NOISE_FIXED = 1
end

@enum koala_loading::Int32 begin
    KOALA_LOADING_EXACT = 0
    KOALA_LOADING_WHAT_FITS = 1
end

"The settings of a group of tensors: see [`settings`](@ref)."
struct koala_settings
    size::Csize_t
    learning_rate::Cdouble
    weight_decay::Cdouble
    initial_variance::Cdouble
    process_noise::Cdouble
    variant::koala_variant
    frozen::UInt32
    prior_variance::Cdouble
end

struct koala_loss
    mean::Cdouble
    second_moment::Cdouble
end

"Which optimizer steps, and its numbers: see koala.h."
struct koala_method
    size::Csize_t
    kind::koala_method_kind
    nesterov::UInt32
    momentum::Cdouble
    beta1::Cdouble
    beta2::Cdouble
    epsilon::Cdouble
    variance::Cdouble
    process_noise::Cdouble
    covariance::Cdouble
    velocity_variance::Cdouble
    velocity_decay::Cdouble
    velocity_noise::Cdouble
end

struct koala_step
    size::Csize_t
    groups::Ptr{koala_settings}
    group_count::Csize_t
    method::Ptr{koala_method}
    loss::Cdouble
    noise::Cdouble
    gradient_factor::Cdouble
    gradient_limit::Cdouble
    backend::koala_backend
    on_non_finite::koala_on_non_finite
    on_breakdown::koala_on_breakdown
    norms::UInt32
end

"The scalars of one tensor's filter: x = h·h, y = h·v, s, and the number of steps."
struct koala_scalars
    h_h::Cdouble
    h_v::Cdouble
    innovation_variance::Cdouble
    steps::Cdouble
end

struct koala_tensor
    size::Csize_t
    length::Csize_t
    type::koala_element_type
    state_type::koala_state_type
    copy_type::koala_copy_type
    group::UInt32
    exchange::UInt32
    reserved::UInt32
    parameters::Ptr{Cvoid}
    gradient::Ptr{Cvoid}
    v::Ptr{Cvoid}
    h::Ptr{Cvoid}
    copy::Ptr{Cvoid}
    scalars::Ptr{koala_scalars}
end

"What a step did with one tensor: `outcome`, S, α, λ, w, (H·H)/S, and, if asked for, the norms of g, H and θ."
struct koala_tensor_report
    outcome::koala_outcome
    reserved::UInt32
    innovation_variance::Cdouble
    alpha::Cdouble
    lambda::Cdouble
    w::Cdouble
    gain::Cdouble
    gradient_norm::Cdouble
    measurement_norm::Cdouble
    parameters_norm::Cdouble
end

"What a step did with all tensors: R, the norm of clipped gradients, and how many of them came to what."
struct koala_report
    size::Csize_t
    backend::koala_backend
    reserved::UInt32
    step::UInt64
    noise::Cdouble
    gradient_norm::Cdouble
    gain::Cdouble
    stepped::UInt64
    first_steps::UInt64
    restarts::UInt64
    skipped::UInt64
    frozen::UInt64
    non_finite::UInt64
    breakdowns::UInt64
    withheld::UInt64
end

struct koala_config
    size::Csize_t
    method::Ptr{koala_method}
    gradient_factor::Cdouble
    gradient_limit::Cdouble
    clip_norm::Cdouble
    initial_noise::Cdouble
    noise_decay::Cdouble
    noise::koala_noise
    backend::koala_backend
    on_non_finite::koala_on_non_finite
    on_breakdown::koala_on_breakdown
    threads::UInt32
    norms::UInt32
end

struct koala_parameters
    size::Csize_t
    tensor::Csize_t
    length::Csize_t
    type::koala_element_type
    copy_type::koala_copy_type
    parameters::Ptr{Cvoid}
    gradient::Ptr{Cvoid}
    copy::Ptr{Cvoid}
end

"What was loaded: how many tensors, and how much was not, as it differs."
struct koala_loaded
    size::Csize_t
    tensors::UInt64
    differences::UInt64
end

"An optimizer of libkoala, of which C shows nothing."
mutable struct koala_optimizer end

koala_check_version(header) = @ccall libkoala.koala_check_version(header::UInt32)::koala_status

koala_last_error(buffer, capacity, length) =
    @ccall libkoala.koala_last_error(buffer::Ptr{Cchar}, capacity::Csize_t, length::Ref{Csize_t})::koala_status

koala_settings_init(settings, size) =
    @ccall libkoala.koala_settings_init(settings::Ref{koala_settings}, size::Csize_t)::koala_status

koala_step_init(step, size) = @ccall libkoala.koala_step_init(step::Ref{koala_step}, size::Csize_t)::koala_status

koala_config_init(config, size) =
    @ccall libkoala.koala_config_init(config::Ref{koala_config}, size::Csize_t)::koala_status

koala_noise_update(decay, loss, noise) =
    @ccall libkoala.koala_noise_update(decay::Cdouble, loss::Ref{koala_loss}, noise::Ref{Cdouble})::koala_status

koala_step_tensor(step, tensor, report) = @ccall libkoala.koala_step_tensor(
    step::Ref{koala_step},
    tensor::Ref{koala_tensor},
    report::Ref{koala_tensor_report},
)::koala_status

koala_optimizer_create(config, optimizer) = @ccall libkoala.koala_optimizer_create(
    config::Ref{koala_config},
    optimizer::Ref{Ptr{koala_optimizer}},
)::koala_status

koala_optimizer_destroy(optimizer) =
    @ccall libkoala.koala_optimizer_destroy(optimizer::Ptr{koala_optimizer})::koala_status

koala_optimizer_add_group(optimizer, settings, group) = @ccall libkoala.koala_optimizer_add_group(
    optimizer::Ptr{koala_optimizer},
    settings::Ref{koala_settings},
    group::Ref{UInt32},
)::koala_status

koala_optimizer_set_learning_rate(optimizer, group, learning_rate) =
    @ccall libkoala.koala_optimizer_set_learning_rate(
        optimizer::Ptr{koala_optimizer},
        group::UInt32,
        learning_rate::Cdouble,
    )::koala_status

koala_optimizer_add_tensor(optimizer, name, length, type, state_type, group, number) =
    @ccall libkoala.koala_optimizer_add_tensor(
        optimizer::Ptr{koala_optimizer},
        name::Cstring,
        length::Csize_t,
        type::koala_element_type,
        state_type::koala_state_type,
        group::UInt32,
        number::Ref{Csize_t},
    )::koala_status

koala_optimizer_scalars(optimizer, tensor, scalars) = @ccall libkoala.koala_optimizer_scalars(
    optimizer::Ptr{koala_optimizer},
    tensor::Csize_t,
    scalars::Ref{koala_scalars},
)::koala_status

koala_optimizer_noise(optimizer, noise) =
    @ccall libkoala.koala_optimizer_noise(optimizer::Ptr{koala_optimizer}, noise::Ref{Cdouble})::koala_status

koala_optimizer_step(optimizer, loss, tensors, count, reports, report) = @ccall libkoala.koala_optimizer_step(
    optimizer::Ptr{koala_optimizer},
    loss::Ref{koala_loss},
    tensors::Ptr{koala_parameters},
    count::Csize_t,
    reports::Ptr{koala_tensor_report},
    report::Ref{koala_report},
)::koala_status

koala_optimizer_save(optimizer, path) =
    @ccall libkoala.koala_optimizer_save(optimizer::Ptr{koala_optimizer}, path::Cstring)::koala_status

koala_optimizer_load(optimizer, path, loading, loaded) = @ccall libkoala.koala_optimizer_load(
    optimizer::Ptr{koala_optimizer},
    path::Cstring,
    loading::koala_loading,
    loaded::Ref{koala_loaded},
)::koala_status

koala_optimizer_differences(optimizer, buffer, capacity, length) =
    @ccall libkoala.koala_optimizer_differences(
        optimizer::Ptr{koala_optimizer},
        buffer::Ptr{Cchar},
        capacity::Csize_t,
        length::Ref{Csize_t},
    )::koala_status
