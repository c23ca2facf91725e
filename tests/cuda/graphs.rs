//! Graphs among other steps: each launch is a step of what was captured, wherever the gradients of the others are, and
//! whatever else was stepped; and nothing counts as done that was only captured.

use std::sync::Arc;

use koala_optim::cuda::{Config, Driver, Error};

use crate::machine::{Graph, Recorder, machine};
use crate::shim::Fake;
use crate::three::{LOSS, OnCpu, OnDevice, assert_same};

/// A model, the same on the CPU, and what captures its steps.
struct Both<D> {
    device: OnDevice<D>,
    cpu: OnCpu,
    recorder: Recorder,
}

impl Both<Arc<dyn Driver>> {
    /// On the GPU, or the shim.
    fn on_machine() -> Option<Self> {
        let machine = machine()?;
        let config = Config { details: true, ..Config::default() };
        Some(Self::new(OnDevice::on(machine.driver.clone(), config), machine.recorder()))
    }
}

impl<D: Driver + Clone + 'static> Both<D> {
    fn new(mut device: OnDevice<D>, recorder: Recorder) -> Self {
        device.stream = recorder.stream();
        Both { device, cpu: OnCpu::new(), recorder }
    }

    /// A step of those tensors with the gradients that there are.
    fn step(&mut self, which: &[usize]) {
        let tensors: Vec<_> = which.iter().map(|i| self.device.tensor(*i)).collect();
        self.device.optimizer.step(self.device.stream, LOSS, &tensors).unwrap();
        self.stepped(which);
    }

    /// What the device has just done is what the CPU does.
    fn stepped(&mut self, which: &[usize]) {
        let report = self.cpu.step(which, LOSS);
        assert_eq!(self.device.report(), report);
        let details = self.device.optimizer.details(self.device.stream).unwrap();
        assert_eq!(details.len(), which.len());
        assert_same(&mut self.device, &self.cpu);
    }

    fn move_gradients(&mut self, seed: usize) {
        self.device.move_gradients(seed);
        self.cpu.seed = seed;
    }

    fn capture(&mut self, which: &[usize]) -> Graph {
        let Both { device, recorder, .. } = self;
        let tensors: Vec<_> = which.iter().map(|i| device.tensor(*i)).collect();
        recorder.capture(|stream| device.optimizer.step(stream, LOSS, &tensors).unwrap())
    }

    /// Launches a graph of those tensors, captured while the gradients had that seed.
    fn launch(&mut self, graph: &Graph, which: &[usize], seed: usize) {
        self.recorder.launch(graph);
        let now = std::mem::replace(&mut self.cpu.seed, seed);
        let report = self.cpu.step(which, LOSS);
        assert_eq!(self.device.report(), report);
        self.cpu.seed = now;
        assert_same(&mut self.device, &self.cpu);
    }
}

const ALL: [usize; 3] = [0, 1, 2];

#[test]
fn a_graph_keeps_its_gradients() {
    let Some(mut both) = Both::on_machine() else { return };
    both.step(&ALL);
    let graph = both.capture(&ALL);
    both.launch(&graph, &ALL, 3);
    for seed in [20, 30] {
        both.move_gradients(seed);
        both.step(&ALL);
        both.launch(&graph, &ALL, 3);
        both.launch(&graph, &ALL, 3);
        both.step(&ALL);
    }
}

#[test]
fn gradients_that_were_only_captured_are_not_known() {
    let Some(mut both) = Both::on_machine() else { return };
    both.step(&ALL);
    both.move_gradients(20);
    let graph = both.capture(&ALL);
    both.step(&ALL);
    both.step(&ALL);
    both.launch(&graph, &ALL, 20);
    both.step(&ALL);
}

#[test]
fn steps_of_other_tensors_leave_a_graph_as_it_is() {
    let Some(mut both) = Both::on_machine() else { return };
    both.step(&[0]);
    let graph = both.capture(&[0]);
    // A longer list, for which tables have to grow; then a shorter one in their place.
    for which in [&ALL[..], &[2, 1], &[], &[1]] {
        both.step(which);
        both.launch(&graph, &[0], 3);
    }
    both.step(&[0]);
    both.launch(&graph, &[0], 3);
}

/// Prepared tensors can be captured before any step was taken.
#[test]
fn the_first_step_of_all_is_captured() {
    let Some(mut both) = Both::on_machine() else { return };
    let tensors = both.device.tensors();
    let captured = {
        let Both { device, recorder, .. } = &mut both;
        recorder.capture(|stream| {
            let refused = device.optimizer.step(stream, LOSS, &tensors);
            assert!(matches!(refused, Err(Error::Captured { expected }) if expected.contains("settings")));
            let refused = device.optimizer.prepare(stream, &tensors);
            assert!(matches!(refused, Err(Error::Captured { expected }) if expected.contains("prepared")));
        })
    };
    drop(captured);
    both.device.optimizer.prepare(both.device.stream, &tensors).unwrap();
    let graph = both.capture(&ALL);
    for _ in 0..3 {
        both.launch(&graph, &ALL, 3);
    }
    both.step(&ALL);
}

/// The details are those of the launch, as long as no other step is put on the stream.
#[test]
fn details_of_a_launch() {
    let Some(mut both) = Both::on_machine() else { return };
    both.step(&ALL);
    let graph = both.capture(&ALL);
    for step in 2..5 {
        both.recorder.launch(&graph);
        both.stepped(&ALL);
        assert_eq!(both.device.report().step, step);
    }
}

/// Several steps in one graph, and several graphs of the same tensors with gradients of their own.
#[test]
fn graphs_beside_each_other() {
    let Some(mut both) = Both::on_machine() else { return };
    both.step(&ALL);
    let first = both.capture(&ALL);
    both.move_gradients(20);
    let second = both.capture(&ALL);
    let Both { device, recorder, .. } = &mut both;
    let tensors = device.tensors();
    let twice = recorder.capture(|stream| {
        for _ in 0..2 {
            device.optimizer.step(stream, LOSS, &tensors).unwrap();
        }
    });
    for _ in 0..2 {
        both.launch(&second, &ALL, 20);
        both.launch(&first, &ALL, 3);
        both.recorder.launch(&twice);
        both.cpu.step(&ALL, LOSS);
        both.stepped(&ALL);
        both.step(&ALL);
    }
}

/// Each is an error that leaves the capture as it is, and what is refused is done later.
#[test]
fn what_a_capture_refuses() {
    let Some(mut both) = Both::on_machine() else { return };
    both.step(&ALL);
    let before = both.device.optimizer.counts();
    let Both { device, recorder, .. } = &mut both;
    let (tensors, one) = (device.tensors(), [device.tensor(1)]);
    let graph = recorder.capture(|stream| {
        let optimizer = &mut device.optimizer;
        let refused = |result: Result<(), Error>| match result {
            Err(Error::Captured { expected }) => expected,
            other => panic!("{other:?}"),
        };
        assert!(refused(optimizer.step(stream, LOSS, &one)).contains("same tensors"));
        assert!(refused(optimizer.report(stream).map(drop)).contains("read"));
        assert!(refused(optimizer.details(stream).map(drop)).contains("read"));
        assert!(refused(optimizer.state(stream, "first").map(drop)).contains("read"));
        // There is nothing to write.
        optimizer.write_changes(stream).unwrap();
        optimizer.step(stream, LOSS, &tensors).unwrap();
        optimizer.set_learning_rate(device.group, 0.25).unwrap();
        assert!(refused(optimizer.step(stream, LOSS, &tensors)).contains("settings"));
        assert!(refused(optimizer.write_changes(stream)).contains("settings"));
        optimizer.set_learning_rate(device.group, 1.0).unwrap();
        optimizer.restart("second").unwrap();
        assert!(refused(optimizer.step(stream, LOSS, &tensors)).contains("restarts"));
    });
    let after = both.device.optimizer.counts();
    assert_eq!((after.steps, after.waits), (before.steps, before.waits));
    // The restart is written by a step that runs.
    both.cpu.optimizer.restart("second").unwrap();
    both.step(&ALL);
    assert_eq!(both.device.report().first_steps, 1);
    both.launch(&graph, &ALL, 3);
    // And settings ahead of a launch.
    both.device.optimizer.set_learning_rate(both.device.group, 0.25).unwrap();
    both.cpu.optimizer.set_learning_rate(both.cpu.group, 0.25).unwrap();
    both.device.optimizer.write_changes(both.device.stream).unwrap();
    both.launch(&graph, &ALL, 3);
    both.launch(&graph, &ALL, 3);
    both.step(&ALL);
}

/// However often the same tensors are captured, they have one set of tables more.
#[test]
fn graphs_take_memory_of_the_shim_once_for_each_list_of_tensors() {
    let Some(fake) = Fake::new(1 << 20, 1 << 20) else { return };
    let device = OnDevice::on(fake.clone(), Config::default());
    let mut both = Both::new(device, Recorder::Shim(fake.clone()));
    let mut allocations = Vec::new();
    for _ in 0..4 {
        both.step(&ALL);
        allocations.push(fake.allocations());
        let graph = both.capture(&ALL);
        both.launch(&graph, &ALL, 3);
    }
    assert!(allocations[1] > allocations[0]);
    assert_eq!(allocations[1..], [allocations[1]; 3]);
    drop(both);
    // The buffers of parameters and gradients are the test's.
    assert_eq!(fake.allocations(), 6);
}
