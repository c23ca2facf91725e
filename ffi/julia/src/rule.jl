# KOALA++ as a rule of Optimisers.jl.

"What all arrays of a model share: the minibatch's loss L, and R."
mutable struct Measurement
    loss::Float64
    noise::Float64
end

"""
    KoalaPlusPlus(; initial_noise = 1, noise_decay = 0.9, members...)

KOALA++ as a rule of Optimisers.jl, with the [`settings`](@ref) that `members` say. A step needs the loss, which that
package does not hand on, so [`measure!`](@ref) tells the rule before each update:

    rule = KoalaPlusPlus(weight_decay = 1e-4)
    state = Optimisers.setup(rule, model)
    loss, gradients = Flux.withgradient(average_loss, model)
    measure!(rule; loss)
    state, model = Optimisers.update!(state, model, gradients[1])

Optimisers.jl subtracts what a rule returns, θ − θ', so a parameter may be off by a rounding from what [`step!`](@ref)
writes, where it becomes less than its half or more than its double.
"""
struct KoalaPlusPlus <: Optimisers.AbstractRule
    settings::koala_settings
    noise_decay::Float64
    measurement::Measurement
end

function KoalaPlusPlus(; initial_noise::Real = 1, noise_decay::Real = 0.9, members...)
    return KoalaPlusPlus(settings(; members...), noise_decay, Measurement(NaN, initial_noise))
end

"""
    measure!(rule; loss, second_moment = loss²)

Tells a rule the minibatch's mean loss L, and m, the mean of its squared per-sample losses, and takes R forward:
R ← decay·R + (1 − decay)·m. Once before each update. Throws a `KoalaError` if m is negative or not finite.
"""
function measure!(rule::KoalaPlusPlus; loss::Real, second_moment::Real = loss^2)
    measurement = rule.measurement
    measurement.noise = update_noise(measurement.noise; second_moment, decay = rule.noise_decay)
    measurement.loss = loss
    return nothing
end

# What `Optimisers.adjust!(state, learning_rate)` does with the rule.
function Optimisers.adjust(rule::KoalaPlusPlus, learning_rate::Real)
    return KoalaPlusPlus(changed(rule.settings, (; learning_rate)), rule.noise_decay, rule.measurement)
end

function Optimisers.init(::KoalaPlusPlus, parameters::AbstractArray{T}) where {T<:Element}
    state = TensorState(Array(parameters))
    return (state.v, state.h, state.scalars)
end

function Optimisers.apply!(rule::KoalaPlusPlus, state, parameters::AbstractArray{T}, gradient) where {T<:Element}
    (; loss, noise) = rule.measurement
    isnan(loss) && throw(ArgumentError("measure!(rule; loss) has to be called before the first update"))
    new, filter = Array(parameters), TensorState(state...)
    # The gradient may be a broadcast that has not been done yet.
    row = Array{T}(Broadcast.materialize(gradient))
    step!(new, row, filter; loss, noise, settings = rule.settings)
    return state, parameters .- new
end
