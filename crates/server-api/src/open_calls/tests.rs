use super::*;

fn remote(ip: &str) -> Caller {
    Caller::Remote { addr: format!("{ip}:1").parse().unwrap(), svid: None }
}

#[test]
fn open_calls_are_counted_by_address() {
    let calls = OpenCalls::new(2);
    let (one, other) = (remote("192.0.2.1"), remote("[::ffff:192.0.2.2]"));
    let first = calls.begin(&one);
    let second = calls.clone().begin(&one);
    assert!(first.is_some() && second.is_some());
    assert!(calls.begin(&one).is_none(), "the third of the address");
    let elsewhere = calls.begin(&other);
    assert!(elsewhere.is_some());
    assert!(calls.begin(&remote("192.0.2.2")).is_some(), "the same address in its other form, once more");
    drop(first);
    assert!(calls.begin(&one).is_some());
    drop((second, elsewhere));
    assert!(calls.lock().is_empty(), "nothing is left of addresses without calls");
}
