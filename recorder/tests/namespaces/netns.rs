//! Network namespaces under a random name, removed when dropped.

use std::{fs::File, os::fd::AsFd as _, path::PathBuf, process::Command};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub struct Netns {
    pub name: String,
}

impl Netns {
    pub fn new(role: &str) -> Self {
        let name = format!("pw-{role}-{:08x}", random());
        run("ip", &["netns", "add", &name]);
        run("ip", &["-n", &name, "link", "set", "lo", "up"]);
        Self { name }
    }

    /// Runs `ip` in the namespace.
    pub fn ip(&self, arguments: &str) {
        let all: Vec<&str> = ["-n", &self.name].into_iter().chain(arguments.split(' ')).collect();
        run("ip", &all);
    }

    /// Runs the future on a runtime of its own inside the namespace.
    pub fn run<T: Send>(&self, work: impl Future<Output = T> + Send) -> T {
        let file = File::open(PathBuf::from("/run/netns").join(&self.name)).unwrap();
        let inside = || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            tokio::runtime::Runtime::new().unwrap().block_on(work)
        };
        std::thread::scope(|scope| scope.spawn(inside).join().unwrap())
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "del", &self.name]).output());
    }
}

/// Enough to tell apart what runs at the same time on one machine.
pub fn random() -> u32 {
    let random = ulid::Ulid::new().random() & u128::from(u32::MAX);
    random.try_into().unwrap()
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
}
