//! Progress in a cell of the notebooks' kernel: the messages that the kernel turns into one line per task.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use loss_landscape::prelude::*;
use loss_landscape::serde_json::{self, Value};

/// Work in a process that the kernel could have started: a short task, then a long one with a task in it.
#[test]
#[ignore = "run by the other test"]
fn work_of_a_cell() {
    let data = two_moons(200, 0.1, 0, &Device::Cpu).unwrap();
    let model = Mlp::new(&[2, 8, 1], Activation::Tanh, 0, &Device::Cpu).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let trainer = Trainer::sgd(0.01).with_batch_size(20);
    trainer.fit(&model, &data, &data).unwrap();
    let slow = Slow(40);
    Dense::from_operator(&slow).unwrap();
    println!("text of the cell");
    Lanczos::default().run(&slow, 2).unwrap();
}

/// An operator whose products take 50 ms.
struct Slow(usize);

impl LinearOperator for Slow {
    fn dim(&self) -> usize {
        self.0
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>, Error> {
        sleep(Duration::from_millis(50));
        Ok((1..).zip(v).map(|(i, v)| f64::from(i) * v).collect())
    }
}

fn output_of_a_cell(in_kernel: bool) -> (String, Duration) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "--nocapture", "work_of_a_cell"]);
    command.env_remove("LOSS_LANDSCAPE_KERNEL");
    if in_kernel {
        command.env("LOSS_LANDSCAPE_KERNEL", "1");
    }
    let started = Instant::now();
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success());
    (String::from_utf8(output.stdout).unwrap(), started.elapsed())
}

#[test]
fn each_long_task_sends_messages() {
    let (output, took) = output_of_a_cell(true);
    let mut messages: Vec<Value> = Vec::new();
    let mut lines = output.lines();
    while let Some(line) = lines.next() {
        if line == "EVCXR_BEGIN_CONTENT application/vnd.loss-landscape.progress+json" {
            messages.push(serde_json::from_str(lines.next().unwrap()).unwrap());
            assert_eq!(lines.next(), Some("EVCXR_END_CONTENT"));
        } else {
            assert!(
                !line.contains("EVCXR") && !line.contains("s left"),
                "{line}"
            );
        }
    }
    assert!(output.contains("text of the cell\n"));
    let ids: Vec<u64> = messages.iter().map(|m| m["id"].as_u64().unwrap()).collect();
    let names = |id: u64| {
        let of_task = messages.iter().filter(move |m| m["id"] == id);
        of_task
            .map(|m| m["task"].as_str().unwrap())
            .collect::<Vec<_>>()
    };
    let mut distinct = ids.clone();
    distinct.dedup();
    assert_eq!(distinct.len(), 2, "{output}");
    assert!(
        names(distinct[0])
            .iter()
            .all(|name| *name == "dense matrix")
    );
    assert!(names(distinct[1]).iter().all(|name| *name == "Lanczos"));
    // Four a second, and one at the end of each task.
    assert!(messages.len() as f64 <= 4.0 * took.as_secs_f64() + 2.0);
    for (i, message) in messages.iter().enumerate() {
        let keys: Vec<&str> = message
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let expected = ["id", "task", "status", "fraction", "left_seconds", "done"];
        assert!(
            expected.iter().all(|key| keys.contains(key)) && keys.len() == 6,
            "{keys:?}"
        );
        let is_last = messages
            .get(i + 1)
            .is_none_or(|next| next["id"] != message["id"]);
        assert_eq!(message["done"], is_last, "{output}");
    }
    let dense: Vec<&Value> = messages
        .iter()
        .filter(|m| m["task"] == "dense matrix")
        .collect();
    let (first, last) = (dense[0], dense[dense.len() - 1]);
    assert_eq!(first["status"], "16 of 40");
    assert_eq!(first["fraction"], 0.4);
    // 16 products took 0.8 s or more, and 24 are left.
    assert!(first["left_seconds"].as_f64().unwrap() >= 1.2);
    assert_eq!(
        (&last["fraction"], &last["left_seconds"]),
        (&1.0.into(), &0.0.into())
    );
    let lanczos = messages.iter().find(|m| m["task"] == "Lanczos").unwrap();
    assert!(lanczos["fraction"].is_null() && lanczos["left_seconds"].is_null());
}

#[test]
fn other_processes_print_lines() {
    let (output, _) = output_of_a_cell(false);
    assert!(!output.contains("EVCXR"), "{output}");
}
