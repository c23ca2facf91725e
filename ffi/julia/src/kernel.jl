# Steps of arrays whose state is the caller's, and the errors of libkoala.

"What a parameter can be."
const Element = Union{Float32,Float64}

"""
What libkoala says of a call that did nothing: `text` names the tensor and the numbers, `status` is koala.h's number.
"""
struct KoalaError <: Exception
    status::Int32
    text::String
end

Base.showerror(io::IO, error::KoalaError) = print(io, "KoalaError: ", error.text)

"A text of libkoala: `copy(buffer, capacity, length)` is called for its length, then for itself."
function text_from(copy)
    bytes = Ref{Csize_t}(0)
    copy(Ptr{Cchar}(C_NULL), 0, bytes)
    buffer = zeros(UInt8, bytes[] + 1)
    return GC.@preserve buffer begin
        copy(Ptr{Cchar}(pointer(buffer)), length(buffer), bytes)
        unsafe_string(pointer(buffer))
    end
end

"Throws what a status other than success stands for. To be called before anything else may call libkoala."
function check(status::koala_status)
    status == KOALA_STATUS_OK && return nothing
    throw(KoalaError(status, text_from(koala_last_error)))
end

function __init__()
    check(koala_check_version(KOALA_VERSION))
end

element_type(::Type{Float32}) = KOALA_ELEMENT_TYPE_F32
element_type(::Type{Float64}) = KOALA_ELEMENT_TYPE_F64

"A struct of zeros, for an output or for a function that fills it."
function zeroed(::Type{T}) where {T}
    bytes = zeros(UInt8, sizeof(T))
    return GC.@preserve bytes Ref(unsafe_load(Ptr{T}(pointer(bytes))))
end

"The same struct with some members changed."
function changed(from::T, members) where {T}
    for name in keys(members)
        name in fieldnames(T) || throw(ArgumentError("there is no $name, but $(join(fieldnames(T)[2:end], ", "))"))
    end
    return T((get(members, name, getfield(from, name)) for name in fieldnames(T))...)
end

"""
    settings(; learning_rate = 1, weight_decay = 0, initial_variance = 0.1, process_noise = 0.1,
             variant = Koala.KOALA_VARIANT_SYMMETRIC, frozen = 0, prior_variance = 0)

The settings of tensors: η ≥ 0, the share of the Kalman step that is taken; wd ≥ 0, coupled, so that the loss of a
tensor is L + ½·wd·θ·θ; σ > 0, the variance of a parameter before the first step, in squared units of the parameter;
Q ≥ 0, what that grows by in each step; the variant; 1 for tensors that stay as they are; and γ ≥ 0, the prior variance
of `Koala.KOALA_VARIANT_DEFINITE`, which alone reads it, where 0 stands for σ. Whoever uses them looks at the ranges.
"""
function settings(; members...)
    defaults = zeroed(koala_settings)
    check(koala_settings_init(defaults, sizeof(koala_settings)))
    return changed(defaults[], members)
end

"""
    TensorState(parameters)

The filter of one array of parameters before its first step: `v` and `h`, shaped as the parameters, and the four
`scalars` x = h·h, y = h·v, s, and the number of steps. Arrays of numbers, to be saved as such.
"""
struct TensorState{T<:Element,N}
    v::Array{T,N}
    h::Array{T,N}
    scalars::Vector{Float64}
end

TensorState(parameters::Array{T}) where {T<:Element} = TensorState(zero(parameters), zero(parameters), zeros(4))

"""
    update_noise(noise; second_moment, decay = 0.9)

R for the next step: decay·R + (1 − decay)·m, with m the mean of the squared per-sample losses. The paper begins with 1.
Throws a `KoalaError` if the decay is not in [0, 1], or R or m is negative or m not finite.
"""
function update_noise(noise::Real; second_moment::Real, decay::Real = 0.9)
    next = Ref{Cdouble}(noise)
    check(koala_noise_update(decay, Ref(koala_loss(0, second_moment)), next))
    return next[]
end

"""
    step!(parameters, gradient, state::TensorState; loss, noise, settings = settings(), options...)

One step of one array, in place: writes `parameters` and `state`, allocates next to nothing, uses one thread.

`gradient` is ∂L/∂θ of the minibatch's mean loss, and of the parameters' type and shape; `loss` is L, `noise` is R, in
squared units of the loss: see [`update_noise`](@ref). Options are the last members of koala.h's `koala_step`:
`backend`, `on_non_finite`, `on_breakdown`, `norms`.

Returns a `koala_tensor_report`. Throws a `DimensionMismatch`, or a `KoalaError`; nothing has been written then.
"""
function step!(
    parameters::Array{T},
    gradient::Array{T},
    state::TensorState{T};
    loss::Real,
    noise::Real,
    settings::koala_settings = Koala.settings(),
    options...,
) where {T<:Element}
    for (name, array) in (("gradient", gradient), ("v", state.v), ("h", state.h))
        if size(array) != size(parameters)
            throw(DimensionMismatch("$name has the size $(size(array)), expected $(size(parameters))"))
        end
    end
    length(state.scalars) == 4 || throw(DimensionMismatch("there are $(length(state.scalars)) scalars, expected 4"))
    defaults = zeroed(koala_step)
    check(koala_step_init(defaults, sizeof(koala_step)))
    group, report = Ref(settings), zeroed(koala_tensor_report)
    (; v, h, scalars) = state
    GC.@preserve group parameters gradient v h scalars begin
        groups = Base.unsafe_convert(Ptr{koala_settings}, group)
        step = changed(defaults[], (; options..., loss, noise, groups, group_count = 1))
        tensor = koala_tensor(
            sizeof(koala_tensor),
            length(parameters),
            element_type(T),
            KOALA_STATE_TYPE_SAME,
            KOALA_COPY_TYPE_NONE,
            0,
            0,
            0,
            pointer(parameters),
            pointer(gradient),
            pointer(v),
            pointer(h),
            C_NULL,
            pointer(scalars),
        )
        check(koala_step_tensor(Ref(step), Ref(tensor), report))
    end
    return report[]
end
