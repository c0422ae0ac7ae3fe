//! However the input is split into reads, the steps are the same.

use proptest::prelude::*;

use super::*;

/// A read that ends at STARTTLS or at a refused DATA means something (RFC 2920); those have their own tests.
const PIECES: &[&[u8]] = &[
    b"EHLO client.example\r\n",
    b"MAIL FROM:<a@b>\r\n",
    b"MAIL FROM:<no-a@b> SIZE=12\r\n",
    b"RCPT TO:<c@d>\r\n",
    b"RCPT TO:<later-c@d>\r\n",
    b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 5\r\nab\r\n.BDAT 4 LAST\r\n\r\n.\n",
    b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n",
    b"BDAT 6\r\nQUIT\r\n",
    b"BDAT 3 LAST\r\nx\r\n",
    b"Received: x\r\n",
    b"..\r\n",
    b"\r\n.\r\n",
    b".\r\n",
    b"x\n.\r\n",
    b"\r",
    b"\0",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"AUTH PLAIN AGEAcmlnaHQ=\r\n",
    b"*\r\n",
    b"FOO\r\n",
];

fn script() -> impl Strategy<Value = Vec<u8>> {
    let piece = proptest::sample::select(PIECES).prop_map(<[u8]>::to_vec);
    let long = (500usize..600).prop_map(|n| [b"NOOP ".to_vec(), vec![b'x'; n], b"\r\n".to_vec()].concat());
    let any = prop_oneof![20 => piece, 1 => long];
    proptest::collection::vec(any, 1..25)
        .prop_map(|pieces| [b"EHLO x\r\n".to_vec(), pieces.concat()].concat())
}

/// The steps; the content of a message that was taken stands in its step.
fn run(script: &[u8], sizes: &[usize]) -> Vec<String> {
    let mut client = Client::open();
    client.session.config.limits.message_size = 60;
    client.session.config.limits.discard = 60;
    let (mut at, mut turn) = (0, 0);
    while at < script.len() {
        let to = at
            .saturating_add(sizes[turn.min(sizes.len() - 1)])
            .min(script.len());
        turn += 1;
        client.send(&script[at..to]);
        at = to;
        if client.steps.last().is_some_and(|step| step.starts_with("CLOSE")) {
            break;
        }
    }
    client.steps
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn splits_change_nothing(script in script(), sizes in proptest::collection::vec(1usize..40, 1..30)) {
        let whole = run(&script, &[usize::MAX]);
        // A refused DATA with more behind it closes when they come in one read; skip those scripts.
        prop_assume!(!whole.iter().any(|step| step.contains("421 4.5.0")));
        let split = run(&script, &sizes);
        prop_assert_eq!(whole, split);
    }

    #[test]
    fn any_octets_are_answered(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut client = Client::open();
        client.send(&octets);
        prop_assert!(client.session.transaction().is_none());
    }
}
