//! Bounds on what signatures may cost, and on what they write.

use super::*;

fn signature(names: usize) -> String {
    let names = vec!["x"; names].join(":");
    format!("DKIM-Signature: v=1; a=rsa-sha256; d=a.example; s=s; h={names}; bh=AAAA; b=AAAA\r\n")
}

#[test]
fn signatures_that_cost_too_much_are_not_verified() {
    let signatures = |header: String| {
        let message = header + "From: a@a.example\r\n\r\nx\r\n";
        bounded(AuthenticatedMessage::parse(message.as_bytes()).unwrap())
            .dkim_headers
            .len()
    };
    assert_eq!(signatures(signature(3)), 1);
    assert_eq!(signatures(signature(3).repeat(SIGNATURES + 1)), SIGNATURES);
    assert_eq!(signatures(signature(2000) + &"x:\r\n".repeat(2000)), 0);
    assert_eq!(
        signatures(signature(3) + &signature(2000) + &"x:\r\n".repeat(2000)),
        1
    );
}

#[test]
fn broken_signatures_make_no_endless_field() {
    let message = "DKIM-Signature: v=2\r\n".repeat(10_000) + "From: a@a.example\r\n\r\n";
    let message = bounded(AuthenticatedMessage::parse(message.as_bytes()).unwrap());
    assert_eq!(message.errors.len(), SIGNATURES);
}

#[test]
fn a_line_that_is_too_long_keeps_its_result() {
    let long = "d".repeat(RESULT_LINE);
    assert_eq!(
        bounded_lines(&format!(
            ";\r\n\tdkim=pass header.d={long} header.s=s;\r\n\tdkim=pass header.d=a.example;\r\n\tspf=none smtp.helo={long}"
        )),
        ";\r\n\tdkim=pass;\r\n\tdkim=pass header.d=a.example;\r\n\tspf=none"
    );
}
