//! The machine as this process finds it: processor, features, caches, memory.

use koala_optim::Threads;
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

use crate::bench::record::{Cache, Processor};

/// All that can be found out; what can't is empty, or 0.
pub fn describe() -> Processor {
    let threads = threads();
    let caches = caches().into_iter().map(|cache| Cache {
        // A virtual machine is often told what holds for the real one.
        shared_by: cache.shared_by.map(|sharers| sharers.min(threads)),
        ..cache
    });
    Processor {
        name: name().unwrap_or_else(|| "unknown".to_owned()),
        architecture: std::env::consts::ARCH.to_owned(),
        threads,
        features: features(),
        caches: caches.collect(),
        memory_bytes: memory().map_or(0, |(total, _)| total),
    }
}

/// Those that the system lets this process use.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What `--threads` says: 0 stands for all that the system lets this process use.
pub fn parse_threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Ok(threads().min(Threads::MOST)),
        Ok(count) if count <= Threads::MOST => Ok(count),
        _ => Err(format!("expected 0, for all that this process may use, or a number up to {}", Threads::MOST)),
    }
}

/// The memory of the machine, or of the container that this is, and what is free of it, in bytes.
pub fn memory() -> Option<(u64, u64)> {
    let mut system = System::new().ok()?;
    system.refresh_memory();
    let (total, available) = (system.total_memory(), system.available_memory());
    if total == 0 {
        return None;
    }
    Some(match system.cgroup_limits() {
        Some(limits) => (total.min(limits.total_memory), available.min(limits.free_memory)),
        None => (total, available),
    })
}

/// The memory that this process holds, in bytes.
pub fn resident() -> Option<u64> {
    let process = sysinfo::get_current_pid().ok()?;
    let mut system = System::new().ok()?;
    let refresh = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[process]), false, refresh);
    Some(system.process(process)?.memory())
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
fn caches() -> Vec<Cache> {
    use raw_cpuid::{CacheType, CpuId};
    let parameters = CpuId::new().get_cache_parameters();
    let data = parameters.into_iter().flatten().filter(|cache| cache.cache_type() != CacheType::Instruction);
    data.map(|cache| {
        let lines = cache.associativity() * cache.physical_line_partitions() * cache.sets();
        Cache {
            level: cache.level(),
            bytes: (lines * cache.coherency_line_size()) as u64,
            shared_by: Some(cache.max_cores_for_cache()),
        }
    })
    .collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn caches() -> Vec<Cache> {
    let read = |i: usize, field| {
        let text = std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{i}/{field}"));
        text.ok().map(|text| text.trim().to_owned())
    };
    (0..)
        .map_while(|i| Some((read(i, "type")?, read(i, "level")?, read(i, "size")?)))
        .filter(|(kind, ..)| kind != "Instruction")
        .filter_map(|(_, level, size)| {
            let kibibytes: u64 = size.strip_suffix('K')?.parse().ok()?;
            Some(Cache { level: level.parse().ok()?, bytes: kibibytes * 1024, shared_by: None })
        })
        .collect()
}
