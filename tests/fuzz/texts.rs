//! Quantities, URLs, entries of the allow list, `Retry-After`.

use crate::mutate::{self, fuzz};
use chrono::{TimeDelta, TimeZone, Utc};
use serin::alerts::{Allowed, Egress, retry_after};
use serin::api::{Number, Share, Span, Time, span_text};

const SEEDS: [&str; 30] = [
    "1h30m",
    "500ms",
    "3650d",
    "30s",
    "1%",
    "0.5%",
    "100.000%",
    "0.01",
    "-3.5",
    "999999999999999999.999999999",
    "https://hooks.example.com/T0/B0?x=y#z",
    "http://127.0.0.1:8080/",
    "http://[::ffff:169.254.169.254]:80/",
    "http://user:pass@hooks.example.com/",
    "http://①②⑦.⓪.⓪.①/",
    "http://0x7f.1/",
    "http://kubernetes.default.svc/",
    "http://localhost./",
    "http://[fe80::1%25eth0]/",
    "hooks.example.com:8443",
    "10.0.0.0/8",
    "[fd00::1]:443",
    "fd00::/8",
    "0.0.0.0/0",
    "127.0.0.1",
    "120",
    "Sun, 06 Nov 1994 08:49:37 GMT",
    "Sunday, 06-Nov-94 08:49:37 GMT",
    "Sun Nov  6 08:49:37 1994",
    "Fri, 31 Dec 9999 23:59:60 GMT",
];

#[test]
fn texts() {
    let now = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap();
    let egress = Egress::open(Vec::new()).with_api_servers(["10.96.0.1", "api.example.com"]);
    fuzz("texts", |rng| {
        let seed = *rng.pick(&SEEDS);
        let text = mutate::text(rng, seed);
        if let Ok(span) = Span::new(&*text).parse() {
            assert!(
                span >= TimeDelta::zero() && span <= TimeDelta::days(3650),
                "{text:?}"
            );
            assert!(!span_text(span).is_empty(), "{text:?}");
        }
        if let Ok(share) = Share::new(&*text).parse() {
            assert!((0.0..=1.0).contains(&share), "{text:?}");
        }
        if let Ok(number) = Number::new(&*text).parse() {
            assert!(number.is_finite(), "{text:?} is {number}");
        }
        if let Ok(target) = egress.admit(&text) {
            // The host is what is shown; it is not empty, and is no address that is refused elsewhere.
            let host = target.host();
            assert!(
                !host.is_empty() && !format!("{target:?}").contains("T0/B0"),
                "{text:?}"
            );
            let bare = host.trim_matches(['[', ']']);
            if let Ok(address) = bare.parse() {
                assert!(
                    egress.admit_addresses(&host, [address]).is_ok(),
                    "{text:?} leads to {host}"
                );
            }
        }
        match text.parse::<Allowed>() {
            Ok(entry) => {
                let listed = Egress::only_listed(vec![entry]);
                let _ = listed.admit(&text).is_ok();
                let _ = listed.admit(&format!("http://{text}/")).is_ok();
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        let at = *rng.pick(&[now, Time::MIN_UTC, Time::MAX_UTC]);
        let _ = retry_after(&text, at);
    });
}
