//! The kernel's WireGuard.

use std::sync::Arc;

use rustix::io::Errno;

use crate::{
    Backend, Error, Options, PrivateKey,
    interface::{Interface, LinkPlan, Ready},
    netlink::{self, Netlink},
    privileged::{self, Privileged},
    wireguard::Handle,
};

/// Opens a tunnel on a new interface of the kernel's WireGuard.
pub(crate) async fn open(options: &Options, privileged: Arc<dyn Privileged>) -> Result<Interface, Error> {
    let plan = LinkPlan::new(options, Backend::Kernel);
    let device = Handle::new(&plan.name, Backend::Kernel)?;
    let (key, port) = (options.private_key.clone(), options.listen_port);
    let made = {
        let plan = plan.clone();
        move || make(&plan, device, &key, port)
    };
    let link = privileged::run(privileged.as_ref(), made).await??;
    Interface::new(plan, link, options.mark, privileged)
}

/// The privileged part. An interface that an earlier run of ours left is replaced: its key is not this one.
fn make(plan: &LinkPlan, device: Handle, key: &PrivateKey, port: Option<u16>) -> Result<Ready, Error> {
    let mut netlink = Netlink::new();
    netlink.delete_link(&plan.name)?;
    netlink.add_wireguard(&plan.name).map_err(without_wireguard)?;
    let configured =
        device.set_identity(key, port).and_then(|()| plan.configure(&mut netlink).map_err(Error::from));
    if configured.is_err() {
        // The first failure is the one to tell.
        drop(netlink.delete_link(&plan.name));
    }
    configured
}

fn without_wireguard(error: netlink::Error) -> Error {
    if error.as_io().raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) {
        Error::NoKernelWireGuard
    } else {
        error.into()
    }
}
