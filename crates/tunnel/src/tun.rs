//! TUN devices: opened and configured where there is privilege, used where there is none.

use std::io;

use gotatun::tun::tun::{self, Device};

use crate::{
    Error,
    interface::{LinkPlan, Ready},
    netlink::Netlink,
    privileged::{self, Privileged},
};

/// Opens the TUN device of the plan, configured and up, in place of one of that name. It goes when it is closed.
pub(crate) async fn open(plan: LinkPlan, privileged: &dyn Privileged) -> Result<(Ready, Device), Error> {
    privileged::run(privileged, move || make(&plan)).await?
}

fn make(plan: &LinkPlan) -> Result<(Ready, Device), Error> {
    let mut netlink = Netlink::new();
    netlink.delete_link(&plan.name)?;
    let mut configuration = tun::Configuration::default();
    // Address and MTU come by netlink, as for the kernel's device.
    configuration.tun_name(&plan.name).platform_config(|platform| {
        platform.ensure_root_privileges(false);
    });
    let device = tun::create(&configuration).map_err(|error| Error::TunNode { why: as_io(error) })?;
    Ok((plan.configure(&mut netlink)?, device))
}

fn as_io(error: tun::Error) -> io::Error {
    match error {
        tun::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}
