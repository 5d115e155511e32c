//! Network namespaces under a random name, removed when dropped.

use std::{fs::File, os::fd::AsFd as _, path::PathBuf, process::Command};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::Runtime;

/// A network namespace.
pub struct Netns {
    /// Its name, as `ip netns` knows it.
    pub name: String,
}

impl Netns {
    /// A new one, with its loopback interface up; the role is a part of the name.
    #[must_use]
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

    /// Runs `nft` in the namespace.
    pub fn nft(&self, arguments: &[&str]) -> String {
        let all: Vec<&str> = ["netns", "exec", &self.name, "nft"].iter().chain(arguments).copied().collect();
        run("ip", &all)
    }

    /// Runs `work` on a thread of its own inside the namespace; threads that it starts are inside too.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(PathBuf::from("/run/netns").join(&self.name)).unwrap();
        let inside = || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join().unwrap())
    }

    /// Runs `work` on a runtime of its own inside the namespace.
    pub fn block_on<T: Send>(&self, work: impl Future<Output = T> + Send) -> T {
        self.run(|| Runtime::new().unwrap().block_on(work))
    }

    /// Sets a `net.…` key of the namespace.
    pub fn sysctl(&self, key: &str, value: &str) {
        self.run(|| std::fs::write(format!("/proc/sys/{}", key.replace('.', "/")), value).unwrap());
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "del", &self.name]).output());
    }
}

/// Runs a program to its end, which has to be a good one: what it said.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Enough to tell apart what runs at the same time on one machine.
#[must_use]
pub fn random() -> u32 {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).unwrap();
    u32::from_ne_bytes(bytes)
}
