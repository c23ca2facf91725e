//! The one table: a line for each test and each figure, printed as it is known, and written as text and as JSON.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// What the figures are of.
#[derive(Clone, Debug)]
pub struct Description {
    pub name: String,
    pub driver: String,
    pub capability: (i32, i32),
    pub l2_bytes: i32,
    pub memory_bytes: usize,
    /// False for the stub driver of the tests.
    pub is_gpu: bool,
}

/// What came of a line's test or measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    Passed,
    Failed,
    Skipped,
    Measured,
}

/// A figure, and what it is hoped to be.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    pub value: f64,
    /// The least, or the most, that it should be.
    pub goal: Option<Goal>,
}

#[derive(Clone, Copy, Debug)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Figure {
    fn is_met(&self) -> Option<bool> {
        Some(match self.goal? {
            Goal::AtLeast(goal) => self.value >= goal,
            Goal::AtMost(goal) => self.value <= goal,
        })
    }
}

struct Row {
    name: String,
    outcome: Outcome,
    text: String,
    figure: Option<Figure>,
}

pub struct Table {
    description: Description,
    rows: Vec<Row>,
}

impl Table {
    pub fn new(description: Description) -> Self {
        Table { description, rows: Vec::new() }
    }

    pub fn print_head(&self) {
        print!("{}", self.head());
    }

    fn head(&self) -> String {
        let Description { name, driver, capability: (major, minor), l2_bytes, memory_bytes, is_gpu } =
            &self.description;
        let mut head = format!(
            "koala-optim {} on {name}\n\
             driver: {driver}; compute capability {major}.{minor}; L2 cache {} KiB, memory {} MiB\n",
            env!("CARGO_PKG_VERSION"),
            l2_bytes >> 10,
            memory_bytes >> 20
        );
        if !is_gpu {
            head += "This is no GPU: the figures below are a processor's, and say nothing about any GPU.\n";
        }
        head + "\n"
    }

    fn line(&self, row: &Row) -> String {
        let outcome = match row.outcome {
            Outcome::Passed => "passed",
            Outcome::Failed => "FAILED",
            Outcome::Skipped => "skipped",
            Outcome::Measured if self.description.is_gpu => "measured",
            Outcome::Measured => "no GPU's",
        };
        let goal = row.figure.and_then(|figure| figure.is_met()).filter(|_| self.description.is_gpu);
        let goal = goal.map_or("", |met| if met { ", which is met" } else { ", which is missed" });
        format!("{outcome:8}  {:75}  {}{goal}", row.name, row.text).trim_end().to_string()
    }

    fn add(&mut self, row: Row) {
        println!("{}", self.line(&row));
        self.rows.push(row);
    }

    /// A line that says what came of it.
    pub fn note(&mut self, outcome: Outcome, name: impl Into<String>, text: impl Into<String>) {
        self.add(Row { name: name.into(), outcome, text: text.into(), figure: None });
    }

    /// A line with a figure, which the text has too.
    pub fn figure(&mut self, name: impl Into<String>, text: impl Into<String>, figure: Figure) {
        self.add(Row { name: name.into(), outcome: Outcome::Measured, text: text.into(), figure: Some(figure) });
    }

    /// Whether nothing failed.
    pub fn is_good(&self) -> bool {
        self.rows.iter().all(|row| row.outcome != Outcome::Failed)
    }

    /// Writes both files, and returns their names.
    pub fn write(&self, folder: &Path, quick: bool) -> io::Result<[PathBuf; 2]> {
        let paths = ["results.txt", "results.json"].map(|name| folder.join(name));
        let lines = self.rows.iter().map(|row| self.line(row) + "\n");
        std::fs::write(&paths[0], self.head() + &lines.collect::<String>())?;
        std::fs::write(&paths[1], format!("{:#}\n", self.json(quick)))?;
        Ok(paths)
    }

    fn json(&self, quick: bool) -> Value {
        let Description { name, driver, capability, l2_bytes, memory_bytes, is_gpu } = &self.description;
        let rows = self.rows.iter().map(|row| {
            json!({
                "name": row.name,
                "outcome": format!("{:?}", row.outcome).to_lowercase(),
                "text": row.text,
                "value": row.figure.map(|figure| figure.value),
                "goal_is_met": row.figure.and_then(|figure| figure.is_met()),
            })
        });
        json!({
            "schema": "koala-gpu-1",
            "version": env!("CARGO_PKG_VERSION"),
            "quick": quick,
            "device": {
                "name": name,
                "is_gpu": is_gpu,
                "driver": driver,
                "compute_capability": [capability.0, capability.1],
                "l2_bytes": l2_bytes,
                "memory_bytes": memory_bytes,
            },
            "rows": rows.collect::<Vec<_>>(),
        })
    }
}
