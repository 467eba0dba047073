//! Seeded worlds in virtual time: gateway, streamer, operator, bus and vehicle, and everything that can fail between
//! them (SAFETY.md section 6 lists what the checkers hold).
//!
//! `OCPCAN_SEED=n` replays one world and prints what happened; `OCPCAN_SEEDS=n` and `OCPCAN_SECONDS=n` change how many
//! and how long.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ocpcan::sim::world::World;
use ocpcan::sim::world::checks::Seen;
use ocpcan::time::Duration;

/// Worlds in a plain test run.
const SEEDS: u64 = 500;

/// Virtual time of each.
const SECONDS: u64 = 60;

/// Worlds that are run twice.
const REPEATED: u64 = 10;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text}, which is no number")))
}

fn run(seed: u64, seconds: u64, verbose: bool) -> Result<Seen, String> {
    let result = std::panic::catch_unwind(|| {
        let mut world = World::new(seed, verbose);
        let result = world.run(Duration::from_secs(seconds));
        for line in world.log() {
            println!("{line}");
        }
        result
    });
    let result = result.unwrap_or_else(|_| Err("panic".to_owned()));
    result
        .map_err(|violation| format!("{violation} (replay: OCPCAN_SEED={seed} cargo test --test simulation)"))
}

#[test]
fn nothing_moves_without_a_reason_in_any_world() {
    let seconds = number("OCPCAN_SECONDS").unwrap_or(SECONDS);
    if let Some(seed) = number("OCPCAN_SEED") {
        let seen = run(seed, seconds, true).unwrap_or_else(|violation| panic!("{violation}"));
        println!("seed {seed}: {seen:?}");
        return;
    }
    let seeds = number("OCPCAN_SEEDS").unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(8);
    let next = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    // How long it takes is printed, never judged.
    #[allow(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        reason = "the speed-up is measured in real time"
    )]
    let started = std::time::Instant::now();
    let all: Vec<_> = std::thread::scope(|scope| {
        let work = || {
            let mut seen = Vec::new();
            while !failed.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds {
                    break;
                }
                let result = run(seed, seconds, false);
                failed.fetch_or(result.is_err(), Ordering::Relaxed);
                seen.push(result);
            }
            seen
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let real = started.elapsed().as_secs_f64();
    let violations: Vec<_> = all.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(violations.is_empty(), "{violations:#?}");
    let seen: Vec<Seen> = all.into_iter().flatten().collect();
    let mut trips: BTreeMap<&str, u32> = BTreeMap::new();
    for (name, count) in seen.iter().flat_map(|one| &one.trips) {
        *trips.entry(name).or_default() += count;
    }
    let sum = |of: fn(&Seen) -> u64| seen.iter().map(of).sum::<u64>();
    let virtual_s = u32::try_from(seeds * seconds).unwrap();
    println!(
        "simulation: {seeds} seeds of {seconds} virtual seconds in {real:.1} s, {:.0} x real time; {} arms, {} trips \
         from ARMED, {} lockouts, {} reactions within their bound, {} messages, {} answers, {} frames",
        f64::from(virtual_s) / real,
        sum(|one| u64::from(one.arms)),
        trips.values().sum::<u32>(),
        sum(|one| u64::from(one.lockouts)),
        sum(|one| u64::from(one.reactions)),
        sum(|one| one.messages),
        sum(|one| one.answers),
        sum(|one| one.frames),
    );
    println!("trips by cause: {trips:?}");
    if seeds >= 100 && seconds >= 30 {
        assert!(trips.len() >= 15, "only these causes were seen: {trips:?}");
        let armed = seen.iter().filter(|one| one.arms > 0).count();
        assert!(armed * 100 >= seen.len() * 90, "only {armed} of {seeds} worlds reached ARMED");
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in 0..REPEATED {
        let first = run(seed, 20, false).unwrap_or_else(|violation| panic!("{violation}"));
        let second = run(seed, 20, false).unwrap_or_else(|violation| panic!("{violation}"));
        assert_eq!(first, second, "seed {seed}");
    }
    let different = run(0, 20, false).unwrap().hash != run(1, 20, false).unwrap().hash;
    assert!(different, "two seeds, one world");
}
