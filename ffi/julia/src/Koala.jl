"""
The optimizer step of KOALA++ (arXiv 2506.04432) on `Array{Float32}` and `Array{Float64}`, by libkoala.

A Kalman filter per tensor, whose measurement is the minibatch's loss. With H = g + wd·θ and the state v, h, x = h·h,
y = h·v, s of a tensor (before its first step h = H, v = σ·H, s = y + Q·x + R), a step is

    α  = H·h/x      λ = (H·v + Q·H·h)/s      w = H·v/x − (H·h)·y/x²      (w = 0 in the vanilla variant)
    v' = (α − λ)·v + Q·H + (w − Q·λ)·h
    s' = H·v' + Q·H·H + R
    θ' = θ − η·(L + ½·wd·θ·θ)/s' · (v' + Q·H)

In the definite variant α = H·v/y, w = −γ·H·h/x, and v' has (Q + γ)·H in the place of Q·H.

Three ways lead to it: [`step!`](@ref) of an array whose state you keep, [`Optimizer`](@ref) for named tensors in
groups, and the rule [`KoalaPlusPlus`](@ref) for Optimisers.jl. All give the same bits.

The environment variable `KOALA_LIBRARY`, when this package is precompiled, says where the library is; by default the
system looks for `libkoala`, on Windows for `koala`.
"""
module Koala

using Optimisers: Optimisers

export KoalaPlusPlus, Optimizer, TensorState, add_group!, add_tensor!, load!, measure!, noise, save, scalars
export set_learning_rate!, settings, step!, update_noise

include("capi.jl")
include("kernel.jl")
include("optimizer.jl")
include("rule.jl")

end
