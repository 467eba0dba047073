//! The control language: every command, every mistake.

use super::*;

fn ok(line: &str) -> Command {
    parse(line).unwrap_or_else(|error| panic!("{line}: {error}")).unwrap_or_else(|| panic!("{line}"))
}

#[test]
fn each_command_is_understood() {
    let ms = Duration::from_millis;
    for (line, want) in [
        ("axis left_x 0.5", Command::Axis(Axis::LeftX, 0.5)),
        ("trigger right 1", Command::Axis(Axis::RightTrigger, 1.0)),
        ("trigger left 0", Command::Axis(Axis::LeftTrigger, -1.0)),
        ("trigger left 0.5", Command::Axis(Axis::LeftTrigger, 0.0)),
        ("  press  start ", Command::Press(Button::Start)),
        ("release dpad_left", Command::Release(Button::DpadLeft)),
        ("arm", Command::Arm { settle: ms(2_000), hold: ms(1_500), button: Button::Start }),
        ("arm 10 20 a", Command::Arm { settle: ms(10), hold: ms(20), button: Button::A }),
        ("counter freeze", Command::Counter(CounterMode::Freeze)),
        ("counter 77", Command::CounterSet(77)),
        ("link cut", Command::Link(Direction::Both, LinkState::Cut, None)),
        ("link jitter 30", Command::LinkSet(Direction::Up, LinkSetting::Jitter(ms(30)))),
        ("link loss 0.1", Command::LinkSet(Direction::Up, LinkSetting::Loss(0.1))),
        ("cut uplink", Command::Link(Direction::Up, LinkState::Cut, None)),
        ("cut both 250", Command::Link(Direction::Both, LinkState::Cut, Some(ms(250)))),
        ("hold downlink 1", Command::Link(Direction::Down, LinkState::Held, Some(ms(1)))),
        ("restore downlink", Command::Link(Direction::Down, LinkState::Up, None)),
        ("downlink delay 80", Command::LinkSet(Direction::Down, LinkSetting::Delay(ms(80)))),
        ("uplink reorder 1", Command::LinkSet(Direction::Up, LinkSetting::Reorder(1.0))),
        ("gamepad unplug", Command::Gamepad(false)),
        ("active loader-7", Command::Active(Some("loader-7".into()))),
        ("active none", Command::Active(None)),
        ("source webview", Command::Source(Source::Webview, None)),
        ("camera stop Front left", Command::Camera("Front left".into(), false)),
        ("feedback stop", Command::Feedback(false)),
        ("frame 600", Command::Frame(ms(600), 1)),
        ("frame 600 x3", Command::Frame(ms(600), 3)),
        ("fault raise High Latency", Command::Fault("High Latency".into(), true)),
        ("fault clear InputLost", Command::Fault("InputLost".into(), false)),
        ("fault clear", Command::FaultsClear),
        ("session off", Command::Session(false)),
        ("monitor on", Command::Monitor(true)),
        ("vehicle b close", Command::Vehicle("b".into(), Box::new(Command::Close))),
        (
            "vehicle b inject body {\"a  b\": 1}",
            Command::Vehicle("b".into(), Box::new(Command::Inject(Inject::Body("{\"a  b\": 1}".into()), 1))),
        ),
        ("player stall 40", Command::Player(Box::new(Command::Stall(ms(40))))),
        ("player inject oversize x2", Command::Player(Box::new(Command::Inject(Inject::Oversize, 2)))),
        ("restart player", Command::Player(Box::new(Command::Restart(Duration::ZERO)))),
        ("restart player 300", Command::Player(Box::new(Command::Restart(ms(300))))),
        ("fault Latency Loop Not Closed on", Command::Fault("Latency Loop Not Closed".into(), true)),
        ("fault HighLatency off", Command::Fault("HighLatency".into(), false)),
        ("stall 1000", Command::Stall(ms(1_000))),
        ("ack freeze", Command::AckFreeze(true)),
        ("ack back 500", Command::AckBack(500)),
        ("controller none", Command::Controller(Some(DefaultValues::Absent))),
        ("controller on", Command::Controller(None)),
        ("rate 5", Command::Rate(Some(5.0))),
        ("restart", Command::Restart(Duration::ZERO)),
        ("restart 300", Command::Restart(ms(300))),
        ("wait 1.5", Command::Wait(Duration::from_micros(1_500))),
        ("inject zero", Command::Inject(Inject::Zero, 1)),
        ("inject zero x3", Command::Inject(Inject::Zero, 3)),
        ("inject axis left_x 1e39 x20", Command::Inject(Inject::Axis("left_x".into(), "1e39".into()), 20)),
        ("inject body {\"a b\": 1}", Command::Inject(Inject::Body("{\"a b\": 1}".into()), 1)),
    ] {
        assert_eq!(ok(line), want, "{line}");
    }
    let Command::User(Some(members)) = ok(r#"user {"horn": true, "mode": "crab"}"#) else { panic!() };
    assert_eq!(members.len(), 2);
}

#[test]
fn blank_lines_and_comments_are_no_commands() {
    for line in ["", "   ", "# axis left_x 1", "\t#"] {
        assert_eq!(parse(line), Ok(None), "{line:?}");
    }
}

#[test]
fn mistakes_are_answered_with_the_right_form() {
    for line in [
        "axis",
        "axis left 1",
        "axis left_x NaN",
        "axis left_x",
        "trigger up 1",
        "press",
        "press button",
        "arm 1",
        "user [1]",
        "user {",
        "counter slow",
        "link",
        "link loss 2",
        "fault on",
        "fault X maybe",
        "stall",
        "stall -1",
        "rate 0",
        "wait forever",
        "inject",
        "inject nonsense",
        "inject zero x0",
        "neutral now",
        "listen maybe",
        "video",
        "cut",
        "cut sideways",
        "restore both 5",
        "uplink",
        "uplink cut",
        "gamepad",
        "active",
        "source tcp",
        "source plugin {\"client_user_data\": 5}",
        "camera stop",
        "feedback",
        "frame",
        "frame 5 x0",
        "fault raise",
        "vehicle",
        "vehicle b",
        "vehicle b axis left_x 1",
        "vehicle b vehicle c close",
        "vehicle b player close",
        "vehicle b quit",
        "player",
        "player neutral",
        "player cut both",
        "player inject nan",
        "player player close",
    ] {
        assert!(matches!(parse(line), Err(CommandError::Usage(_))), "{line}: {:?}", parse(line));
    }
    assert_eq!(parse("fly away"), Err(CommandError::Unknown("fly".into())));
}

#[test]
fn every_injection_in_the_usage_text_is_understood() {
    for name in inject::NAMES {
        ok(&format!("inject {name}"));
        ok(&format!("inject {name} x2"));
    }
}
