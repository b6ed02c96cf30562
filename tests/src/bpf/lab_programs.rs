//! The lab's programs: a generator and a checker for the far end of a veth.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp},
};
use relay_ebpf::lab::{
    CHECK, Checked, GENERATE, LabConfig, SEQUENCE_OFFSET, TEMPLATE_LEN, Template, VNI_SLOTS, VniCount, map,
};

use super::{array_value, load_object, load_program, loaded_program, own_values, set_array_value};

/// Generator and checker, loaded and not attached.
#[derive(Debug)]
pub struct LabPrograms(Ebpf);

impl LabPrograms {
    /// Loads both programs with new maps.
    pub fn load(object: &Path) -> Result<Self> {
        let mut ebpf = load_object(object)?;
        load_program(&mut ebpf, CHECK)?;
        load_program(&mut ebpf, GENERATE)?;
        Ok(Self(ebpf))
    }

    /// The checker.
    pub fn checker(&mut self) -> Result<&mut Xdp> {
        loaded_program(&mut self.0, CHECK)
    }

    /// The generator.
    pub fn generator(&mut self) -> Result<&mut Xdp> {
        loaded_program(&mut self.0, GENERATE)
    }

    /// Sets what checker and generator do.
    pub fn configure(&mut self, config: &LabConfig) -> Result<()> {
        set_array_value::<_, { size_of::<LabConfig>() }>(&mut self.0, map::CONFIG, 0, config)
    }

    /// Sets the template at `index` to the start of `frame`. The first eight bytes after the Geneve header of
    /// `frame` must be zero.
    pub fn set_template(&mut self, index: u32, frame: &[u8]) -> Result<()> {
        let bytes: &[u8; TEMPLATE_LEN] = frame.first_chunk().context("a frame shorter than a template")?;
        anyhow::ensure!(
            bytes[SEQUENCE_OFFSET..].iter().all(|&byte| byte == 0),
            "the place of the number is taken"
        );
        let template = Template { bytes: *bytes, reserved: [0; 6] };
        set_array_value::<_, { size_of::<Template>() }>(&mut self.0, map::TEMPLATES, index, &template)
    }

    /// Generates `count` frames with the size and the body of `frame`, in batches of at most `batch`, and
    /// sends them. Call it inside the namespace of the egress interface.
    pub fn generate(&mut self, frame: &[u8], count: u32, batch: u32) -> Result<()> {
        self.generator()?.test_run(TestRunOptions {
            data_in: Some(frame),
            repeat: count,
            attrs: TestRunAttrs::new().xdp_live_frames(batch),
            ..TestRunOptions::new()
        })?;
        Ok(())
    }

    /// Frames generated so far.
    pub fn generated(&self) -> Result<u64> {
        array_value::<_, 8>(&self.0, map::GENERATED, 0)
    }

    /// Frames that the checker saw, by [`Checked`], on all CPUs.
    pub fn checked(&self) -> Result<[u64; Checked::COUNT as usize]> {
        let mut sums = [0; Checked::COUNT as usize];
        for (index, sum) in (0..).zip(&mut sums) {
            *sum = own_values::<u64, 8>(&self.0, map::CHECKED, index)?.iter().sum();
        }
        Ok(sums)
    }

    /// Frames with correct checksums whose VNI falls into the slot of `vni`, on all CPUs.
    pub fn checked_vni(&self, vni: u32) -> Result<VniCount> {
        let values = own_values::<VniCount, { size_of::<VniCount>() }>(&self.0, map::VNIS, vni % VNI_SLOTS)?;
        Ok(values.iter().fold(VniCount::default(), |sum, value| VniCount {
            packets: sum.packets + value.packets,
            bytes: sum.bytes + value.bytes,
        }))
    }
}
