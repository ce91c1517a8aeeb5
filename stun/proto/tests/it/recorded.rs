//! Responses of other servers, recorded by Tailscale, and what is a STUN message at all: the tables of
//! upstream's own tests (`net/stun/stun_test.go`).

use towpath_stun_proto::Response;

/// The bytes that these digits stand for.
fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// Name, response, and the address that it tells.
const RECORDED: [(&str, &str, &str); 9] = [
    (
        "Google",
        "0101000c 2112a442 2360b11e3ec68ffa93e08007 00200008 0001c786 6957856f",
        "72.69.33.45:59028",
    ),
    (
        "Google, another port",
        "0101000c 2112a442 f9f121cbde7d7c75923ce271 00200008 0001c787 6957856f",
        "72.69.33.45:59029",
    ),
    (
        "sipgate, with the number of a draft and every address that RFC 3489 knows",
        "01010044 2112a442 482eb64715e8b28eaead6444 00010008 0001e4ab 4845212d 00040008 00012710 d90a4498
         00050008 00012711 d9747a8a 80200008 0001c5b9 6957856f 80220010 566f766964612e6f726720302e393600",
        "72.69.33.45:58539",
    ),
    (
        "PowerVoIP, without XOR-MAPPED-ADDRESS",
        "01010024 2112a442 7e57966829f444609d1deaa6 00010008 0001e9d3 4845212d 00040008 00010d96 4d48a9d4
         00050008 00010d97 4d48a9d5",
        "72.69.33.45:59859",
    ),
    (
        "Pion, and what is not part of the message",
        "01010024 2112a442 ebc2d36ef471217c4f3e308e 8022000a 656e64706f696e7465720000 00200008 0001ce66 5e12a443
         80280004 b699bb02 01010024 2112a442",
        "127.0.0.1:61300",
    ),
    (
        "Stuntman, IPv6",
        "01010048 2112a442 06f56685d28af3e69ce341e2 00010014 000290ce 260200d1b4cfc10038b231fffeef96f6
         802b0014 00020d96 2604a880000200d10000000000c57001 00200014 0002b1dc 0710a493b23aa785ea38c219620cd714",
        "[2602:d1:b4cf:c100:38b2:31ff:feef:96f6]:37070",
    ),
    (
        "three bytes of padding",
        "01010014 2112a442 ebc2d36ef471217c4f3e308e 80220001 61000000 00200008 0001ce66 5e12a443",
        "127.0.0.1:61300",
    ),
    (
        "one byte of padding",
        "01010014 2112a442 ebc2d36ef471217c4f3e308e 80220003 61626300 00200008 0001ce66 5e12a443",
        "127.0.0.1:61300",
    ),
    (
        "IPv4 in IPv6",
        "01010018 2112a442 4fd5d202dcb37d31fc773306 00200014 0002cd3d 2112a4424fd5d202dcb382ce2dc3fcc7",
        "209.180.207.193:60463",
    ),
];

#[test]
fn recorded_responses_are_read() {
    for (name, response, mapped) in RECORDED {
        let response = bytes(response);
        let read = Response::parse(&response).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(read.mapped, mapped.parse().unwrap(), "{name}");
        assert_eq!(read.transaction.0, response[8..20], "{name}");
    }
}
