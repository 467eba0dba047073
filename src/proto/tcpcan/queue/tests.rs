//! Tests of the queue: nothing too old, nothing lost without a count, memory that does not grow.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panicking")]

use super::*;
use crate::can::Id;
use crate::proto::ocp::fuzz::Rng;

const NEVER: Duration = Duration::MAX;

fn ms(n: u64) -> Instant {
    Instant::from_millis(n)
}

fn frame(n: u32) -> Frame {
    Frame::data(Id::extended(n).unwrap(), &[]).unwrap()
}

fn numbers(queue: &FrameQueue) -> Vec<u32> {
    queue.iter().map(|(frame, _)| frame.id().raw()).collect()
}

#[test]
fn the_oldest_goes_when_it_is_full() {
    let mut queue = FrameQueue::new(3);
    for n in 0..5 {
        queue.push(&frame(n), ms(n.into()));
    }
    assert_eq!(numbers(&queue), [2, 3, 4]);
    assert!(queue.is_full());
    assert_eq!(queue.room(), 0);
    assert_eq!(queue.bytes(), 3 * 18);
    assert_eq!(queue.counters(), QueueCounters { pushed: 5, waiting: 3, evicted: 2, ..Default::default() });
    assert_eq!(queue.pop(ms(5), NEVER), Some(frame(2)));
    queue.push(&Frame::fd(Id::standard(9).unwrap(), &[1; 64], false, false).unwrap(), ms(5));
    assert_eq!(numbers(&queue), [3, 4, 9]);
    assert_eq!(queue.bytes(), 2 * 18 + 74);
}

#[test]
fn a_frame_of_the_limits_age_is_too_old() {
    let mut queue = FrameQueue::new(8);
    let limit = Duration::from_millis(250);
    queue.push(&frame(1), ms(0));
    queue.push(&frame(2), ms(1));
    queue.push(&frame(3), ms(100));
    assert_eq!(queue.poll_timeout(limit), Some(ms(250)));
    assert_eq!(queue.expire(ms(250) - Duration::from_nanos(1), limit), 0);
    assert_eq!(queue.fresh(ms(249), limit).count(), 3);
    assert_eq!(queue.expire(ms(250), limit), 1, "the timer's own instant must drop something");
    assert_eq!(queue.poll_timeout(limit), Some(ms(251)));
    assert_eq!(queue.pop(ms(349), limit), Some(frame(3)));
    assert_eq!(queue.poll_timeout(limit), None);
    assert_eq!(queue.counters(), QueueCounters { pushed: 3, taken: 1, aged: 2, ..Default::default() });
}

#[test]
fn without_a_limit_nothing_ages() {
    let mut queue = FrameQueue::new(2);
    queue.push(&frame(1), Instant::ZERO);
    assert_eq!(queue.expire(Instant::from_nanos(u64::MAX), NEVER), 0);
    assert_eq!(queue.pop(Instant::from_nanos(u64::MAX), NEVER), Some(frame(1)));
}

#[test]
fn an_old_frame_behind_a_younger_one_is_not_given_out() {
    // The order that the caller must not produce, for instance with time stamps of two controllers.
    let mut queue = FrameQueue::new(4);
    let limit = Duration::from_millis(10);
    queue.push(&frame(1), ms(100));
    queue.push(&frame(2), ms(0));
    queue.push(&frame(3), ms(100));
    assert_eq!(queue.fresh(ms(105), limit).count(), 1);
    assert_eq!(queue.pop(ms(105), limit), Some(frame(1)));
    assert_eq!(queue.pop(ms(105), limit), Some(frame(3)));
    assert_eq!(queue.counters().aged, 1);
}

#[test]
fn a_begun_frame_outlives_the_limit_and_a_full_queue() {
    let mut queue = FrameQueue::new(2);
    let limit = Duration::from_millis(10);
    queue.push(&frame(1), ms(0));
    queue.set_begun(true);
    for n in 2..=4 {
        queue.push(&frame(n), ms(5));
    }
    assert_eq!(numbers(&queue), [1, 4]);
    assert_eq!(queue.poll_timeout(limit), Some(ms(15)), "not the begun one's");
    assert_eq!(queue.expire(ms(50), limit), 1);
    assert_eq!(numbers(&queue), [1]);
    assert_eq!(queue.poll_timeout(limit), None);
    queue.set_begun(false);
    assert_eq!(queue.expire(ms(50), limit), 1);
    queue.set_begun(true);
    queue.push(&frame(5), ms(50));
    queue.push(&frame(6), ms(50));
    queue.push(&frame(7), ms(50));
    assert_eq!(numbers(&queue), [6, 7], "an empty queue has no begun frame");
}

#[test]
fn at_least_two_places_and_no_more_than_asked_for() {
    assert_eq!(FrameQueue::new(0).room(), 2);
    assert_eq!(FrameQueue::new(1_000).room(), 1_000);
}

#[test]
fn reset_and_discard() {
    let mut queue = FrameQueue::new(4);
    queue.push(&frame(1), ms(0));
    queue.push(&frame(2), ms(0));
    assert_eq!(queue.discard(), 2);
    assert_eq!((queue.len(), queue.bytes()), (0, 0));
    assert_eq!(queue.counters(), QueueCounters { pushed: 2, discarded: 2, ..Default::default() });
    queue.push(&frame(3), ms(0));
    queue.reset();
    assert_eq!(queue.counters(), QueueCounters::default());
    assert!(queue.is_empty());
    queue.take(3);
    assert_eq!(queue.pop(ms(0), NEVER), None);
}

#[test]
fn every_frame_is_counted_once_whatever_happens() {
    let mut rng = Rng::from_environment("every_frame_is_counted_once_whatever_happens");
    for _ in 0..300 {
        let capacity = 2 + rng.below(9);
        let mut queue = FrameQueue::new(capacity);
        let mut model = std::collections::VecDeque::new(); // numbers and times of what waits
        let (mut now, mut want) = (Instant::ZERO, QueueCounters::default());
        for n in 0..200_u32 {
            let limit = Duration::from_millis(1 + u64::try_from(rng.below(20)).unwrap());
            let age = |model: &mut std::collections::VecDeque<(u32, Instant)>, want: &mut QueueCounters| {
                while model.front().is_some_and(|(_, at)| now.since(*at) >= limit) {
                    model.pop_front();
                    want.aged += 1;
                }
            };
            match rng.below(8) {
                0..=3 => {
                    queue.push(&frame(n), now);
                    want.pushed += 1;
                    if model.len() == capacity {
                        model.pop_front();
                        want.evicted += 1;
                    }
                    model.push_back((n, now));
                }
                4 => {
                    age(&mut model, &mut want);
                    let popped = model.pop_front().map(|(n, _)| frame(n));
                    want.taken += u64::from(popped.is_some());
                    assert_eq!(queue.pop(now, limit), popped);
                }
                5 => {
                    age(&mut model, &mut want);
                    queue.expire(now, limit);
                    let n = rng.below(4).min(queue.fresh(now, limit).count());
                    want.taken += u64::try_from(n).unwrap();
                    model.drain(..n);
                    queue.take(n);
                }
                6 => now += Duration::from_millis(u64::try_from(rng.below(6)).unwrap()),
                _ if rng.below(20) == 0 => {
                    want.discarded += u64::try_from(model.len()).unwrap();
                    model.clear();
                    queue.discard();
                }
                _ => {}
            }
            want.waiting = u64::try_from(model.len()).unwrap();
            assert_eq!(queue.counters(), want);
            assert_eq!(numbers(&queue), model.iter().map(|(n, _)| *n).collect::<Vec<_>>());
            let sum = want.waiting + want.taken + want.aged + want.evicted + want.discarded;
            assert_eq!(sum, want.pushed);
        }
    }
}
