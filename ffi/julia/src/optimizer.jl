# The optimizer of libkoala: named tensors in groups, their state, the noise.

"""
    Optimizer(; initial_noise = 1, noise_decay = 0.9, options...)

Named tensors in groups, their filters, and the noise R that they share: R ← decay·R + (1 − decay)·m before each step.
Options are the other members of koala.h's `koala_config`: `noise = Koala.KOALA_NOISE_FIXED` keeps R as it is, `threads`
is the number of threads of a step, 0 for as many as there are processors; `backend`, `on_non_finite`, `on_breakdown`,
`norms`.

Freed by the garbage collector. Not to be used by two tasks at once.

    optimizer = Optimizer()
    group = add_group!(optimizer; weight_decay = 1e-4)
    weight = add_tensor!(optimizer, "weight", parameters, group)
    report = step!(optimizer, [weight => (parameters, gradient)]; loss = 0.7, second_moment = 0.53)
"""
mutable struct Optimizer
    handle::Ptr{koala_optimizer}

    function Optimizer(; members...)
        config, handle = zeroed(koala_config), Ref{Ptr{koala_optimizer}}(C_NULL)
        check(koala_config_init(config, sizeof(koala_config)))
        check(koala_optimizer_create(Ref(changed(config[], members)), handle))
        return finalizer(optimizer -> koala_optimizer_destroy(optimizer.handle), new(handle[]))
    end
end

"""
    add_group!(optimizer; members...)

Makes a group of tensors with the same [`settings`](@ref), and returns its number.
"""
function add_group!(optimizer::Optimizer; members...)
    group = Ref{UInt32}(0)
    GC.@preserve optimizer check(koala_optimizer_add_group(optimizer.handle, Ref(settings(; members...)), group))
    return group[]
end

"""
    set_learning_rate!(optimizer, group, learning_rate)

Changes η of a group from the next step on.
"""
function set_learning_rate!(optimizer::Optimizer, group::Integer, learning_rate::Real)
    GC.@preserve optimizer check(koala_optimizer_set_learning_rate(optimizer.handle, group, learning_rate))
    return nothing
end

"""
    add_tensor!(optimizer, name, parameters, group)

Makes an array of parameters known, by its type and length, and returns its number. The array itself is given to each
step.
"""
function add_tensor!(
    optimizer::Optimizer, name::AbstractString, parameters::Array{T}, group::Integer,
) where {T<:Element}
    number = Ref{Csize_t}(0)
    GC.@preserve optimizer check(
        koala_optimizer_add_tensor(
            optimizer.handle,
            name,
            length(parameters),
            element_type(T),
            KOALA_STATE_TYPE_SAME,
            group,
            number,
        ),
    )
    return number[]
end

"""
    step!(optimizer, [number => (parameters, gradient), …]; loss, second_moment = loss²)

Steps the given tensors in place; `loss` is the minibatch's mean loss L, `second_moment` the mean of the squared
per-sample losses m. Returns a `koala_report`. Throws a `DimensionMismatch`, or a `KoalaError`; nothing has changed
then.
"""
function step!(optimizer::Optimizer, tensors::AbstractVector{<:Pair}; loss::Real, second_moment::Real = loss^2)
    list = map(tensors) do (number, (parameters, gradient))
        parameters isa Array{<:Element} || throw(ArgumentError("tensor $number is a $(typeof(parameters))"))
        gradient isa Array{eltype(parameters)} ||
            throw(ArgumentError("the gradient of $number is a $(typeof(gradient))"))
        if size(gradient) != size(parameters)
            text = "the gradient of tensor $number has the size $(size(gradient)), expected $(size(parameters))"
            throw(DimensionMismatch(text))
        end
        koala_parameters(
            sizeof(koala_parameters),
            number,
            length(parameters),
            element_type(eltype(parameters)),
            KOALA_COPY_TYPE_NONE,
            pointer(parameters),
            pointer(gradient),
            C_NULL,
        )
    end
    list = convert(Vector{koala_parameters}, list)
    report = Ref(changed(zeroed(koala_report)[], (; size = sizeof(koala_report))))
    # `tensors` holds the arrays.
    GC.@preserve optimizer tensors list begin
        given = Ref(koala_loss(loss, second_moment))
        check(koala_optimizer_step(optimizer.handle, given, pointer(list), length(list), C_NULL, report))
    end
    return report[]
end

"""
    noise(optimizer)

R, as the last step used it.
"""
function noise(optimizer::Optimizer)
    found = Ref{Cdouble}(0)
    GC.@preserve optimizer check(koala_optimizer_noise(optimizer.handle, found))
    return found[]
end

"""
    scalars(optimizer, number)

The scalars of a tensor's filter after the last step, as a `koala_scalars`.
"""
function scalars(optimizer::Optimizer, number::Integer)
    found = zeroed(koala_scalars)
    GC.@preserve optimizer check(koala_optimizer_scalars(optimizer.handle, number, found))
    return found[]
end

"""
    save(optimizer, path)

Saves all that the optimizer knows to a file, from which [`load!`](@ref) goes on with the bits of a run that never
stopped. At any time, even if this process is killed, the path leads to the old file or to the new one, each whole. The
parameters are yours to save. Throws a `KoalaError`.
"""
function save(optimizer::Optimizer, path::AbstractString)
    GC.@preserve optimizer check(koala_optimizer_save(optimizer.handle, path))
    return nothing
end

"""
    load!(optimizer, path; loading = Koala.KOALA_LOADING_EXACT)

Loads what [`save`](@ref) has saved: state, settings, noise, number of steps. The optimizer needs to have been made with
the same tensors in the same groups; tensors are matched by name. Throws a `KoalaError` that lists all that differs;
nothing has changed then. With `Koala.KOALA_LOADING_WHAT_FITS` it loads the rest, and returns a line of text for each
difference.
"""
function load!(optimizer::Optimizer, path::AbstractString; loading::koala_loading = KOALA_LOADING_EXACT)
    loaded = Ref(changed(zeroed(koala_loaded)[], (; size = sizeof(koala_loaded))))
    return GC.@preserve optimizer begin
        check(koala_optimizer_load(optimizer.handle, path, loading, loaded))
        differences(given...) = check(koala_optimizer_differences(optimizer.handle, given...))
        split(text_from(differences), '\n'; keepempty = false)
    end
end
