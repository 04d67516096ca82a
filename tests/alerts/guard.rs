//! Which URLs of tenants are called, as a table.

use crate::support::allow;
use serin::alerts::{Allowed, Egress, Refusal};
use std::net::IpAddr;

const OK: &str = "OK";

/// The reason of a refusal, with the host's addresses, if any, judged as they are at the connection.
fn judge(egress: &Egress, url: &str, addresses: &[&str]) -> &'static str {
    let judged = egress.admit(url).and_then(|target| {
        if target.is_trusted() || addresses.is_empty() {
            return Ok(());
        }
        let addresses = addresses.iter().map(|a| a.parse::<IpAddr>().unwrap());
        egress
            .admit_addresses(&target.host(), addresses)
            .map(|_| ())
    });
    judged.map_or_else(|refusal| refusal.reason(), |()| OK)
}

#[test]
fn urls_by_their_text() {
    let egress = Egress::open(Vec::new()).with_api_servers(["10.96.0.1", "api.prod.example.com."]);
    for (url, answer) in [
        ("https://hooks.example.com/T0/B0?x=y#z", OK),
        ("http://hooks.example.com", OK),
        ("HTTPS://HOOKS.EXAMPLE.COM/", OK),
        ("https://hooks.example.com./", OK),
        ("https://hooks.example.com:8443/", OK),
        ("  https://hooks.example.com/\n", OK),
        ("http://alertmanager.monitoring.svc:9093/api", OK),
        ("http://alertmanager.monitoring:9093/", OK),
        ("http://8.8.8.8/", OK),
        ("http://[2606:4700::1111]/", OK),
        ("http://10.1.2.3/", OK),
        ("http://172.16.0.1/", OK),
        ("http://192.168.1.1/", OK),
        ("http://100.64.0.1/", OK),
        ("http://[fd12:3456::1]/", OK),
        ("http://[64:ff9b::8.8.8.8]/", OK),
        ("http://[::ffff:8.8.8.8]/", OK),
        ("http://localhostess.example.com/", OK),
        ("http://kubernetes.example.com/", OK),
        // Schemes and shapes.
        ("", "NotAURL"),
        ("hooks.example.com/x", "NotAURL"),
        ("//hooks.example.com/x", "NotAURL"),
        ("https://", "NotAURL"),
        ("https://./", "NotAURL"),
        ("http://hooks.exa\nmple.com/", "NotAURL"),
        ("http://hooks.example.com/\tx", "NotAURL"),
        ("http://hooks.example.com:99999/", "NotAURL"),
        ("http://hooks example.com/", "NotAURL"),
        ("http://[fe80::1%25eth0]/", "NotAURL"),
        ("http://1.2.3.4.5/", "NotAURL"),
        ("http://256.1.1.1/", "NotAURL"),
        ("http://hooks.example.com:0/", "PortRefused"),
        ("ftp://hooks.example.com/", "SchemeRefused"),
        ("file:///etc/passwd", "SchemeRefused"),
        ("gopher://127.0.0.1:6379/_x", "SchemeRefused"),
        ("unix:///var/run/docker.sock", "SchemeRefused"),
        ("data:text/plain,x", "SchemeRefused"),
        ("javascript:alert(1)", "SchemeRefused"),
        ("ws://hooks.example.com/", "SchemeRefused"),
        ("user:pass@hooks.example.com", "SchemeRefused"),
        ("http://user@hooks.example.com/", "UserInfoRefused"),
        ("http://user:pass@hooks.example.com/", "UserInfoRefused"),
        ("http://:pass@hooks.example.com/", "UserInfoRefused"),
        ("http://hooks.example.com@127.0.0.1/", "UserInfoRefused"),
        ("http://hooks.example.com:80@127.0.0.1/", "UserInfoRefused"),
        ("http://hooks.example.com%40127.0.0.1/", "NotAURL"),
        // Loopback, however it is spelt.
        ("http://127.0.0.1/", "AddressRefused"),
        ("http://127.0.0.1:8080/", "AddressRefused"),
        ("http://127.0.0.1./", "AddressRefused"),
        ("http://127.1/", "AddressRefused"),
        ("http://127.0.1/", "AddressRefused"),
        ("http://2130706433/", "AddressRefused"),
        ("http://017700000001/", "AddressRefused"),
        ("http://0x7f000001/", "AddressRefused"),
        ("http://0x7f.1/", "AddressRefused"),
        ("http://0177.0.0.01/", "AddressRefused"),
        ("http://0x7F.0x0.0x0.0x1/", "AddressRefused"),
        ("http://127.127.127.127/", "AddressRefused"),
        ("http:\\\\127.0.0.1\\x", "AddressRefused"),
        ("http:127.0.0.1", "AddressRefused"),
        ("http:////127.0.0.1/", "AddressRefused"),
        ("http://127。0。0。1/", "AddressRefused"),
        ("http://①②⑦.⓪.⓪.①/", "AddressRefused"),
        ("http://%31%32%37.0.0.1/", "AddressRefused"),
        ("http://[::1]/", "AddressRefused"),
        ("http://[::1]:8080/", "AddressRefused"),
        ("http://[0:0:0:0:0:0:0:1]/", "AddressRefused"),
        ("http://[::127.0.0.1]/", "AddressRefused"),
        ("http://[::ffff:127.0.0.1]/", "AddressRefused"),
        ("http://[::ffff:7f00:1]/", "AddressRefused"),
        ("http://[::ffff:0:127.0.0.1]/", "AddressRefused"),
        ("http://[64:ff9b::127.0.0.1]/", "AddressRefused"),
        ("http://[2002:7f00:1::]/", "AddressRefused"),
        ("http://[2606:4700::5efe:127.0.0.1]/", "AddressRefused"),
        ("http://localhost/", "NameRefused"),
        ("http://LOCALHOST:9093/", "NameRefused"),
        ("http://localhost./", "NameRefused"),
        ("http://foo.localhost/", "NameRefused"),
        ("http://ⓛocalhost/", "NameRefused"),
        ("http://localhost.localdomain/", "NameRefused"),
        ("http://ip6-localhost/", "NameRefused"),
        // This machine, this network, no machine.
        ("http://0/", "AddressRefused"),
        ("http://0.0.0.0/", "AddressRefused"),
        ("http://0.1.2.3/", "AddressRefused"),
        ("http://[::]/", "AddressRefused"),
        ("http://[::ffff:0.0.0.0]/", "AddressRefused"),
        ("http://169.254.1.1/", "AddressRefused"),
        ("http://[fe80::1]/", "AddressRefused"),
        ("http://[febf::1]/", "AddressRefused"),
        ("http://[fec0::1]/", "AddressRefused"),
        ("http://224.0.0.1/", "AddressRefused"),
        ("http://239.255.255.255/", "AddressRefused"),
        ("http://[ff02::1]/", "AddressRefused"),
        ("http://255.255.255.255/", "AddressRefused"),
        ("http://240.0.0.1/", "AddressRefused"),
        ("http://192.0.0.8/", "AddressRefused"),
        (
            "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
            "AddressRefused",
        ),
        ("http://[64:ff9b:1::7f00:1]/", "AddressRefused"),
        // Clouds.
        ("http://169.254.169.254/latest/meta-data/", "AddressRefused"),
        ("http://2852039166/", "AddressRefused"),
        ("http://0xa9fea9fe/", "AddressRefused"),
        ("http://[::ffff:169.254.169.254]/", "AddressRefused"),
        ("http://[64:ff9b::a9fe:a9fe]/", "AddressRefused"),
        ("http://[2002:a9fe:a9fe::1]/", "AddressRefused"),
        ("http://169.254.170.2/", "AddressRefused"),
        ("http://169.254.170.23/", "AddressRefused"),
        ("http://100.100.100.200/", "AddressRefused"),
        ("http://192.0.0.192/", "AddressRefused"),
        ("http://168.63.129.16/", "AddressRefused"),
        ("http://[fd00:ec2::254]/", "AddressRefused"),
        ("http://[fd00:ec2::23]/", "AddressRefused"),
        ("http://[fd20:ce::254]/", "AddressRefused"),
        ("http://metadata.google.internal/", "NameRefused"),
        ("http://METADATA.google.internal./", "NameRefused"),
        ("http://metadata/", "NameRefused"),
        ("http://instance-data/", "NameRefused"),
        // The API server.
        ("https://10.96.0.1/", "AddressRefused"),
        ("https://10.96.0.1:6443/", "AddressRefused"),
        ("https://[::ffff:10.96.0.1]/", "AddressRefused"),
        ("https://[64:ff9b::10.96.0.1]/", "AddressRefused"),
        ("https://api.prod.example.com/", "NameRefused"),
        ("https://API.prod.example.com.:6443/", "NameRefused"),
        ("https://kubernetes/", "NameRefused"),
        ("https://kubernetes.default/", "NameRefused"),
        ("https://kubernetes.default.svc/", "NameRefused"),
        (
            "https://kubernetes.default.svc.cluster.local./",
            "NameRefused",
        ),
    ] {
        assert_eq!(judge(&egress, url, &[]), answer, "{url:?}");
    }
    let long = format!("https://hooks.example.com/{}", "x".repeat(3000));
    assert_eq!(judge(&egress, &long, &[]), "URLTooLong");
}

#[test]
fn names_by_what_they_resolve_to() {
    let egress = Egress::open(Vec::new()).with_api_servers(["10.96.0.1", "2001:db8::6443"]);
    let url = "http://hooks.example.com/";
    for (addresses, answer) in [
        (&["203.0.113.7"] as &[&str], OK),
        (&["10.1.2.3"], OK),
        (&["2606:4700::1111"], OK),
        (&["203.0.113.7", "127.0.0.1"], OK),
        (&["127.0.0.1", "203.0.113.7"], OK),
        (&["127.0.0.1"], "AddressRefused"),
        (&["127.0.0.1", "::1"], "AddressRefused"),
        (&["::ffff:127.0.0.1"], "AddressRefused"),
        (&["169.254.169.254"], "AddressRefused"),
        (&["64:ff9b::7f00:1"], "AddressRefused"),
        (&["0.0.0.0"], "AddressRefused"),
        (&["10.96.0.1"], "AddressRefused"),
        (&["2001:db8::6443"], "AddressRefused"),
    ] {
        assert_eq!(judge(&egress, url, addresses), answer, "{addresses:?}");
    }
    let mixed = ["127.0.0.1", "203.0.113.7", "::1"].map(|a| a.parse().unwrap());
    let admitted = egress.admit_addresses("hooks.example.com", mixed);
    assert_eq!(admitted, Ok(vec!["203.0.113.7".parse::<IpAddr>().unwrap()]));
}

#[test]
fn what_the_allow_list_opens_and_what_it_does_not() {
    let api = ["10.96.0.1"];
    for (entry, url, addresses, answer) in [
        ("127.0.0.1", "http://127.0.0.1:9093/", &[] as &[&str], OK),
        ("127.0.0.1", "http://2130706433/", &[], OK),
        ("127.0.0.1", "http://[::ffff:127.0.0.1]/", &[], OK),
        ("127.0.0.1", "http://127.0.0.2/", &[], "AddressRefused"),
        ("127.0.0.1", "http://a.example/", &["127.0.0.1"], OK),
        ("127.0.0.1:9093", "http://127.0.0.1:9093/", &[], OK),
        ("127.0.0.1:9093", "http://127.0.0.1/", &[], "AddressRefused"),
        // A port is known of the URL, not of what a name resolves to.
        (
            "127.0.0.1:9093",
            "http://a.example:9093/",
            &["127.0.0.1"],
            "AddressRefused",
        ),
        ("127.0.0.0/8", "http://127.44.1.2/", &[], OK),
        ("[::1]:80", "http://[::1]/", &[], OK),
        ("::1", "http://[::1]:5/", &[], OK),
        ("[::1]", "http://[::1]:5/", &[], OK),
        ("localhost:80", "http://localhost/", &["127.0.0.1"], OK),
        (
            "localhost:80",
            "http://localhost:81/",
            &["127.0.0.1"],
            "NameRefused",
        ),
        ("LocalHost.", "http://localhost./", &["127.0.0.1"], OK),
        (
            "hooks.example",
            "http://hooks.example:1/",
            &["127.0.0.1"],
            OK,
        ),
        (
            "hooks.example",
            "http://x.hooks.example/",
            &["127.0.0.1"],
            "AddressRefused",
        ),
        // A range is for special addresses only if it has no others in it.
        ("0.0.0.0/0", "http://127.0.0.1/", &[], "AddressRefused"),
        ("::/0", "http://[::1]/", &[], "AddressRefused"),
        ("169.254.0.0/16", "http://169.254.7.7/", &[], OK),
        (
            "169.254.0.0/16",
            "http://169.254.169.254/",
            &[],
            "AddressRefused",
        ),
        ("169.254.169.254", "http://169.254.169.254/", &[], OK),
        (
            "169.254.169.254/32",
            "http://a.example/",
            &["169.254.169.254"],
            OK,
        ),
        ("10.0.0.0/8", "http://10.96.0.1/", &[], "AddressRefused"),
        ("10.96.0.1/32", "http://10.96.0.1/", &[], OK),
        ("10.96.0.1:443", "https://10.96.0.1/", &[], OK),
        (
            "10.96.0.1:443",
            "https://10.96.0.1:6443/",
            &[],
            "AddressRefused",
        ),
        (
            "kubernetes.default.svc",
            "https://kubernetes.default.svc/",
            &["10.96.0.1"],
            OK,
        ),
    ] {
        let egress = Egress::open(allow(&[entry])).with_api_servers(api);
        assert_eq!(
            judge(&egress, url, addresses),
            answer,
            "{entry} {url} {addresses:?}"
        );
    }
}

#[test]
fn when_only_the_list_is_called() {
    for (entries, url, addresses, answer) in [
        (
            &[] as &[&str],
            "http://hooks.example/",
            &[] as &[&str],
            "HostNotListed",
        ),
        (&[], "http://8.8.8.8/", &[], "HostNotListed"),
        (&[], "http://127.0.0.1/", &[], "AddressRefused"),
        (
            &["hooks.example"],
            "http://hooks.example/",
            &["203.0.113.7"],
            OK,
        ),
        (
            &["hooks.example"],
            "http://other.example/",
            &[],
            "HostNotListed",
        ),
        (
            &["hooks.example:443"],
            "http://hooks.example/",
            &[],
            "HostNotListed",
        ),
        (&["10.0.0.0/8"], "http://am.monitoring/", &["10.1.2.3"], OK),
        (
            &["10.0.0.0/8"],
            "http://am.monitoring/",
            &["8.8.8.8"],
            "HostNotListed",
        ),
        (&["10.0.0.0/8"], "http://10.1.2.3/", &[], OK),
        (&["10.0.0.0/8"], "http://11.1.2.3/", &[], "HostNotListed"),
        (&["127.0.0.0/8"], "http://127.244.0.9/", &[], OK),
    ] {
        let egress = Egress::only_listed(allow(entries));
        assert_eq!(
            judge(&egress, url, addresses),
            answer,
            "{entries:?} {url} {addresses:?}"
        );
    }
}

#[test]
fn entries_that_cannot_be_read_are_refused_at_the_start() {
    for bad in [
        "",
        " ",
        "https://hooks.example.com",
        "hooks.example.com/path",
        "user@hooks.example.com",
        "hooks.example.com:",
        "hooks.example.com:0",
        "hooks.example.com:65536",
        "hooks.example.com:http",
        "10.0.0.0/33",
        "10.0.0/8",
        "two hosts",
        "[::1",
        "a\\b",
    ] {
        assert!(bad.parse::<Allowed>().is_err(), "{bad:?}");
    }
    let masked: Allowed = "10.1.2.3/8".parse().unwrap();
    assert_eq!(masked, "10.0.0.0/8".parse().unwrap());
}

#[test]
fn sentences_name_the_host_and_no_more() {
    let egress = Egress::open(Vec::new());
    let refusal = egress
        .admit("http://127.0.0.1:80/secret?token=secret")
        .unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "127.0.0.1 is a loopback address, and the operator's --allow-egress does not name it"
    );
    let refusal = egress.admit_addresses("a.example", ["::1".parse().unwrap()]);
    assert_eq!(
        refusal.unwrap_err().to_string(),
        "a.example resolves to ::1, a loopback address, and the operator's --allow-egress does not name it"
    );
    let listed = Egress::only_listed(Vec::new());
    let refusal = listed.admit("http://a.example/secret").unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "a.example is not on the operator's --allow-egress list"
    );
    assert_eq!(egress.admit("secret:secret").unwrap_err(), Refusal::Scheme);
    let target = egress.admit("https://a.example/secret?secret").unwrap();
    assert_eq!(format!("{target:?}"), "Target(a.example)");
}
