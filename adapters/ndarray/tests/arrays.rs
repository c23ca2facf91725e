//! Arrays of `ndarray`: whatever their order in memory, each element meets its own gradient, in place; and what cannot
//! be stepped in place is an error.

use koala_ndarray::{Error, in_layout_of, tensor};
use koala_optim::{Config, ElementType, Loss, Method, Optimizer, Settings, Sgd, StateType, Tensor};
use ndarray::{Array, Array2, Array3, Axis, Ix2, Ix3, ShapeBuilder, s};

const PERMUTATIONS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

fn optimizer(method: Method, length: usize) -> Optimizer {
    let mut optimizer = Optimizer::new(Config { method, ..Config::default() }).unwrap();
    let group = optimizer.add_group(Settings { learning_rate: 0.125, ..Settings::default() }).unwrap();
    optimizer.add_tensor("weight", length, ElementType::F32, StateType::Same, group).unwrap();
    optimizer
}

fn step(optimizer: &mut Optimizer, tensor: Tensor<'_>) {
    let report = optimizer.step(Loss::new(0.7, 0.6), &mut [tensor]).unwrap();
    assert_eq!(report.stepped, 1);
}

fn parameter((i, j, k): (usize, usize, usize)) -> f32 {
    1.0 + 0.5 * i as f32 - 0.25 * j as f32 + 2.0 * k as f32
}

fn gradient((i, j, k): (usize, usize, usize)) -> f32 {
    0.375 - i as f32 + 0.0625 * j as f32 + 0.1 * k as f32
}

/// An array of that shape, with its axes in memory in the order of `permutation` and those in `reversed` backwards.
fn laid_out(
    shape: [usize; 3],
    permutation: [usize; 3],
    reversed: u8,
    element: impl Fn((usize, usize, usize)) -> f32,
) -> Array3<f32> {
    let mut inverse = [0; 3];
    for (place, axis) in permutation.into_iter().enumerate() {
        inverse[axis] = place;
    }
    let mut array = Array3::zeros(permutation.map(|axis| shape[axis])).permuted_axes(inverse);
    for axis in (0..3).filter(|axis| reversed & (1 << axis) != 0) {
        array.invert_axis(Axis(axis));
    }
    array.assign(&Array::from_shape_fn(shape, element));
    array
}

/// SGD's rule is of single elements, so its bits do not depend on the order of elements.
#[test]
fn every_order_in_memory_is_stepped_in_place() {
    let sgd = Method::Sgd(Sgd { momentum: 0.0, ..Sgd::default() });
    for shape in [[2, 3, 4], [1, 5, 3], [4, 1, 1]] {
        let expected = Array::from_shape_fn(shape, |at| parameter(at) - 0.125 * gradient(at));
        for permutation in PERMUTATIONS {
            for reversed in 0..8 {
                let mut parameters = laid_out(shape, permutation, reversed, parameter);
                let gradient = laid_out(shape, permutation, reversed, gradient);
                let mut optimizer = optimizer(sgd, parameters.len());
                step(&mut optimizer, tensor("weight", parameters.view_mut(), gradient.view()).unwrap());
                assert_eq!(parameters, expected, "{permutation:?}, reversed {reversed:b}");
            }
        }
    }
}

#[test]
fn koala_gives_the_bits_of_slices() {
    let (mut slice, gradient) = ([1.0_f32, -2.0, 3.0, 0.5, 1.5, -0.5], [0.1_f32, 0.2, -0.3, 0.4, 0.7, 0.05]);
    let mut array = Array2::from_shape_vec((2, 3).f(), slice.to_vec()).unwrap();
    let view = ndarray::ArrayView::from_shape((2, 3).f(), &gradient).unwrap();
    let mut optimizers = [(); 2].map(|()| optimizer(Method::default(), 6));
    for _ in 0..3 {
        step(&mut optimizers[0], Tensor::new("weight", &mut slice, &gradient));
        step(&mut optimizers[1], tensor("weight", array.view_mut(), view).unwrap());
    }
    assert_eq!(array.as_slice_memory_order().unwrap(), slice);
}

#[test]
fn shapes_that_differ_are_an_error() {
    let (mut parameters, gradient) = (Array2::<f32>::zeros((2, 3)), Array2::zeros((3, 2)));
    let error = tensor("weight", parameters.view_mut(), gradient.view()).unwrap_err();
    assert_eq!(error.to_string(), r#"tensor "weight": the parameters' shape is [2, 3], the gradient's [3, 2]"#);
}

#[test]
fn other_orders_and_gaps_are_errors_with_the_strides() {
    let refused = |parameters: &mut Array2<f32>, gradient: &Array2<f32>| match tensor(
        "weight",
        parameters.slice_mut(s![.., ..3]),
        gradient.slice(s![.., ..3]),
    )
    .unwrap_err()
    {
        Error::Layout { tensor, shape, parameters, gradient } => {
            assert_eq!((&*tensor, &*shape), ("weight", &[2, 3][..]));
            (parameters, gradient)
        }
        other => panic!("{other}"),
    };
    let zeros = |columns| Array2::zeros((2, columns));
    assert_eq!(refused(&mut zeros(3), &Array2::zeros((2, 3).f())), (vec![3, 1], vec![1, 2]));
    assert_eq!(refused(&mut zeros(4), &zeros(3)), (vec![4, 1], vec![3, 1]));
    assert_eq!(refused(&mut zeros(3), &zeros(4)), (vec![3, 1], vec![4, 1]));
    // The same strides, but with gaps.
    assert_eq!(refused(&mut zeros(4), &zeros(4)), (vec![4, 1], vec![4, 1]));
}

#[test]
fn a_gradient_in_another_order_is_copied_and_one_in_the_same_is_not() {
    let shape = [2, 3, 4];
    for permutation in PERMUTATIONS {
        for reversed in 0..8 {
            let parameters = laid_out(shape, permutation, reversed, parameter);
            let given = laid_out(shape, [1, 2, 0], 5, gradient);
            let fitting = in_layout_of::<_, Ix3>(&parameters, given.view());
            assert_eq!(fitting, given);
            assert_eq!(fitting.is_view(), (permutation, reversed) == ([1, 2, 0], 5));
            assert!(tensor("weight", parameters.clone().view_mut(), fitting.view()).is_ok());
        }
    }
    // An empty one and one of another shape stay as they are.
    assert!(in_layout_of::<_, Ix2>(&Array2::<f32>::zeros((0, 3)), Array2::zeros((0, 3)).view()).is_empty());
    assert!(in_layout_of::<_, Ix2>(&Array2::<f32>::zeros((2, 3)), Array2::zeros((3, 2)).view()).is_view());
}

#[test]
fn empty_arrays_are_stepped_whatever_their_strides() {
    let (mut parameters, gradient) = (Array2::<f32>::zeros((4, 3)), Array2::zeros((4, 3).f()));
    let empty = tensor("weight", parameters.slice_mut(s![1..1, ..]), gradient.slice(s![1..1, ..])).unwrap();
    let report = optimizer(Method::default(), 0).step(Loss::new(0.7, 0.6), &mut [empty]).unwrap();
    assert_eq!(report.skipped, 1);
}
