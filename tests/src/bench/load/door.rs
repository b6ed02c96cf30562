//! A relay of a region, as a load reaches it.

use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::str::FromStr;

use anyhow::Context as _;
use serde::Serialize;

/// A relay's address, and the name that it wants to be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Door {
    /// The name in its certificate.
    pub name: String,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl Display for Door {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.addr)
    }
}

impl FromStr for Door {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, addr) = text.split_once('/').context("a relay is NAME/ADDRESS:PORT")?;
        Ok(Self { name: name.to_owned(), addr: addr.parse().context("the address of a relay")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_survives_a_command_line() -> anyhow::Result<()> {
        let door = Door { name: "derp1.lab".to_owned(), addr: "127.78.0.1:443".parse()? };
        assert_eq!(door.to_string().parse::<Door>()?, door);
        assert!("derp1.lab".parse::<Door>().is_err());
        Ok(())
    }
}
