//! What KOALA++ is compared with: stochastic gradient descent with momentum, and AdamW.
//!
//! Both are plain loops over slices, as their papers write them. The compiler vectorizes them.

/// Stochastic gradient descent with momentum (Polyak, 1964) and coupled weight decay.
pub struct Sgd {
    /// The part of the velocity that a step keeps.
    pub momentum: f32,
    /// Added to the gradient: this, times the parameters.
    pub weight_decay: f32,
    velocities: Vec<Vec<f32>>,
}

impl Sgd {
    /// For tensors of these lengths.
    pub fn new(momentum: f32, weight_decay: f32, lengths: &[usize]) -> Sgd {
        Sgd { momentum, weight_decay, velocities: zeros(lengths) }
    }

    /// One step of tensor number `tensor`.
    pub fn step(&mut self, tensor: usize, rate: f32, parameters: &mut [f32], gradient: &[f32]) {
        let velocity = &mut self.velocities[tensor];
        for ((p, g), u) in parameters.iter_mut().zip(gradient).zip(velocity) {
            *u = self.momentum * *u + (g + self.weight_decay * *p);
            *p -= rate * *u;
        }
    }
}

/// AdamW (Loshchilov and Hutter, 2019): Adam with weight decay that is decoupled from the gradient.
pub struct AdamW {
    /// The decay of the mean of the gradient.
    pub beta1: f32,
    /// The decay of the mean of its square.
    pub beta2: f32,
    /// Keeps the denominator from zero.
    pub epsilon: f32,
    /// A step shrinks the parameters by this, times the learning rate.
    pub weight_decay: f32,
    means: Vec<Vec<f32>>,
    squares: Vec<Vec<f32>>,
    steps: Vec<i32>,
}

impl AdamW {
    /// For tensors of these lengths, with the usual decays.
    pub fn new(weight_decay: f32, lengths: &[usize]) -> AdamW {
        AdamW {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay,
            means: zeros(lengths),
            squares: zeros(lengths),
            steps: vec![0; lengths.len()],
        }
    }

    /// One step of tensor number `tensor`.
    pub fn step(&mut self, tensor: usize, rate: f32, parameters: &mut [f32], gradient: &[f32]) {
        self.steps[tensor] += 1;
        // Both means begin at zero; these undo what that takes from them.
        let correction1 = 1.0 - self.beta1.powi(self.steps[tensor]);
        let correction2 = 1.0 - self.beta2.powi(self.steps[tensor]);
        let moments = self.means[tensor].iter_mut().zip(&mut self.squares[tensor]);
        for ((p, g), (m, s)) in parameters.iter_mut().zip(gradient).zip(moments) {
            *m = self.beta1 * *m + (1.0 - self.beta1) * g;
            *s = self.beta2 * *s + (1.0 - self.beta2) * g * g;
            let direction = (*m / correction1) / ((*s / correction2).sqrt() + self.epsilon);
            *p -= rate * (direction + self.weight_decay * *p);
        }
    }
}

fn zeros(lengths: &[usize]) -> Vec<Vec<f32>> {
    lengths.iter().map(|&length| vec![0.0; length]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two steps by hand: u = 1 + 0.5·2 = 2, p = 2 − 0.1·2; then u = 0.5·2 + (1 + 0.5·1.8) = 2.9, p = 1.8 − 0.29.
    #[test]
    fn sgd_by_hand() {
        let mut sgd = Sgd::new(0.5, 0.5, &[1]);
        let mut parameters = [2.0];
        sgd.step(0, 0.1, &mut parameters, &[1.0]);
        assert!((parameters[0] - 1.8).abs() < 1e-6);
        sgd.step(0, 0.1, &mut parameters, &[1.0]);
        assert!((parameters[0] - 1.51).abs() < 1e-6);
    }

    /// Whatever the gradient, Adam's first step has the length of the learning rate; decay comes on top.
    #[test]
    fn first_step_of_adamw() {
        for gradient in [1e-3, -20.0] {
            let mut adamw = AdamW::new(0.1, &[1]);
            let mut parameters = [3.0_f32];
            adamw.step(0, 0.01, &mut parameters, &[gradient]);
            let expected = 3.0 - 0.01 * (gradient.signum() + 0.1 * 3.0);
            assert!((parameters[0] - expected).abs() < 1e-6);
        }
    }

    /// Against values computed apart from this code, in float64, by the paper's Algorithm 2.
    #[test]
    fn third_step_of_adamw() {
        let mut adamw = AdamW::new(0.01, &[2]);
        let mut parameters = [0.5, -1.5];
        for gradient in [[0.3, -2.0], [-0.1, 1.0], [0.2, 0.5]] {
            adamw.step(0, 0.1, &mut parameters, &gradient);
        }
        for (got, want) in parameters.iter().zip([0.298_410_92, -1.362_958_4]) {
            assert!((got - want).abs() < 1e-6_f32, "{parameters:?}");
        }
    }
}
