//! The opened JSON bodies of login: a body that parses is valid, and parses again after it is written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_common::derp::info::{AppName, ClientInfo, ServerInfo};

fuzz_target!(|json: &[u8]| {
    if let Ok(mut info) = ClientInfo::from_json(json) {
        assert!(AppName::is_valid(&info.app_name));
        // A zero mesh key equals no key, not even itself.
        info.mesh_key = info.mesh_key.filter(|key| key.matches(key));
        assert_eq!(ClientInfo::from_json(&info.to_json()).expect("its own output"), info);
    }
    if let Ok(info) = ServerInfo::from_json(json) {
        assert_eq!(ServerInfo::from_json(&info.to_json()).expect("its own output"), info);
    }
});
