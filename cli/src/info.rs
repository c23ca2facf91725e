//! `koala info`: this machine as the library sees it, its backends, and the one that would be chosen.

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use koala_optim::{Backend, ENVIRONMENT_VARIABLE};

use crate::output::say;

/// Prints all of it.
pub fn execute() -> Result<()> {
    let threads = std::thread::available_parallelism().map_or_else(|_| "?".to_owned(), |n| n.to_string());
    say(format_args!("Processor: {}", name().unwrap_or_else(|| "unknown".to_owned())))?;
    say(format_args!("Architecture: {}, {threads} threads", std::env::consts::ARCH))?;
    say(format_args!("Features: {}", list(features())))?;
    say(format_args!("Caches: {}", list(caches())))?;

    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["backend", "what it is", "here"]);
    for status in Backend::statuses() {
        let here = status.absent_because.map_or("present".to_owned(), |why| format!("absent: {why}"));
        table.add_row([status.name, status.description, &here]);
    }
    say(table)?;

    let forced = std::env::var_os(ENVIRONMENT_VARIABLE).is_some();
    let chosen = Backend::from_environment().with_context(|| format!("{ENVIRONMENT_VARIABLE} is set"))?;
    let reason = if forced { "because KOALA_BACKEND says so" } else { "the fastest that is present" };
    say(format_args!("Chosen: {}, {reason}", chosen.name()))
}

fn list(items: Vec<String>) -> String {
    if items.is_empty() { "unknown".to_owned() } else { items.join(", ") }
}

macro_rules! detected {
    ($detect:ident: $($feature:tt)*) => {
        [$(($feature, std::arch::$detect!($feature))),*]
            .into_iter()
            .filter_map(|(feature, present)| present.then(|| feature.to_owned()))
            .collect()
    };
}

/// Those that a backend asks for, or might.
fn features() -> Vec<String> {
    #[cfg(target_arch = "x86_64")]
    return detected!(is_x86_feature_detected: "sse2" "avx" "f16c" "fma" "avx2" "avx512f" "avx512dq" "avx512vl" "avx512bw" "avx512bf16");
    #[cfg(target_arch = "aarch64")]
    return detected!(is_aarch64_feature_detected: "neon" "fp16" "bf16" "sve" "sve2");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    Vec::new()
}

#[cfg(target_arch = "x86_64")]
fn name() -> Option<String> {
    let brand = raw_cpuid::CpuId::new().get_processor_brand_string()?;
    Some(brand.as_str().trim().to_owned())
}

#[cfg(not(target_arch = "x86_64"))]
fn name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name") || line.starts_with("Model"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(target_arch = "x86_64")]
fn caches() -> Vec<String> {
    use raw_cpuid::{CacheType, CpuId};
    let parameters = CpuId::new().get_cache_parameters();
    let data = parameters.into_iter().flatten().filter(|cache| cache.cache_type() != CacheType::Instruction);
    data.map(|cache| {
        let lines = cache.associativity() * cache.physical_line_partitions() * cache.sets();
        format!("L{} {} KiB", cache.level(), lines * cache.coherency_line_size() / 1024)
    })
    .collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn caches() -> Vec<String> {
    let read = |i: usize, field| {
        let text = std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{i}/{field}"));
        text.ok().map(|text| text.trim().to_owned())
    };
    (0..)
        .map_while(|i| Some((read(i, "type")?, read(i, "level")?, read(i, "size")?)))
        .filter(|(kind, ..)| kind != "Instruction")
        .map(|(_, level, size)| format!("L{level} {}iB", size.replace('K', " K")))
        .collect()
}
