use pasetors::Public;
use pasetors::keys::{AsymmetricPublicKey, AsymmetricSecretKey};
use pasetors::token::UntrustedToken;
use pasetors::version4::{PublicToken, V4};

use super::*;

const NOW: i64 = 1_800_000_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_random(&[seed; 32])
}

fn node(seed: u8) -> NodePublic {
    NodePublic::from_bytes([seed; 32])
}

fn keys(signers: &[&SigningKey]) -> TokenKeys {
    let lines: Vec<_> = signers.iter().map(|key| key.public().to_string()).collect();
    TokenKeys::parse(&lines.join("\n")).expect("keys")
}

fn claims() -> Claims {
    Claims { client: node(1), relay: Some(node(2)), expires: NOW + 1, not_before: Some(NOW), issued: None }
}

fn issue(key: &SigningKey, claims: &Claims) -> Token {
    key.issue(claims).expect("a token")
}

#[test]
fn each_reason_to_refuse_a_token_is_one_of_its_own() {
    let (ours, other) = (key(1), key(2));
    let check = |token: &Token| keys(&[&ours]).check(token, &node(1), &node(2), NOW).map(|ok| ok.expires);
    let with = |change: fn(&mut Claims)| {
        let mut claims = claims();
        change(&mut claims);
        check(&issue(&ours, &claims))
    };
    assert_eq!(with(|_| {}), Ok(NOW + 1));
    assert_eq!(with(|claims| claims.relay = None), Ok(NOW + 1));
    assert_eq!(with(|claims| claims.not_before = None), Ok(NOW + 1));
    assert_eq!(with(|claims| claims.expires = NOW), Err(TokenError::Expired));
    assert_eq!(with(|claims| claims.not_before = Some(NOW + 1)), Err(TokenError::NotYetValid));
    assert_eq!(with(|claims| claims.client = node(3)), Err(TokenError::OtherKey));
    assert_eq!(with(|claims| claims.relay = Some(node(1))), Err(TokenError::OtherRelay));
    assert_eq!(check(&issue(&other, &claims())), Err(TokenError::Forged));
    let signed = |json: &[u8]| paseto::sign(&ours.0, json).parse().expect("a token");
    assert_eq!(check(&signed(b"{}")), Err(TokenError::Malformed));
    for text in ["x", "v4.local.AAAA", "v4.public.AAAA"] {
        assert_eq!(check(&text.parse().expect("text")), Err(TokenError::Malformed), "{text}");
    }
}

/// The key of the old issuer goes once each client has a token of the new one.
#[test]
fn two_keys_are_accepted_at_once_and_a_removed_one_no_more() {
    let (old, new) = (key(1), key(2));
    let check = |keys: &TokenKeys, signer| keys.check(&issue(signer, &claims()), &node(1), &node(2), NOW);
    let checked = check(&keys(&[&old]), &old).expect("accepted");
    assert_eq!(checked.signer, old.public());
    for both in [keys(&[&old, &new]), keys(&[&new, &old])] {
        assert!(check(&both, &old).is_ok() && check(&both, &new).is_ok());
        assert_eq!(both.check_again(&checked, NOW), Ok(()));
        assert_eq!(both.check_again(&checked, NOW + 1), Err(TokenError::Expired));
    }
    let only_new = keys(&[&new]);
    assert_eq!(check(&only_new, &old), Err(TokenError::Forged));
    assert_eq!(only_new.check_again(&checked, NOW), Err(TokenError::Forged));
}

#[test]
fn keys_stand_one_on_a_line_beside_comments() {
    let [one, other, third] = [1, 2, 3].map(|seed| key(seed).public().to_string());
    let text = format!("# issuer of 2026\r\n\n  {one} # present\r\n{other}\n# {third}\n");
    assert_eq!(TokenKeys::parse(&text), Ok(keys(&[&key(1), &key(2)])));
    let secret = key(1).to_text();
    for (text, error) in [
        ("", TokenKeysError::None),
        ("# nothing\n\n", TokenKeysError::None),
        (&format!("{one}\n{other}\n{third}"), TokenKeysError::TooMany(3)),
        (&format!("{one}\n\n{one}"), TokenKeysError::Twice(3)),
        (&format!("{one} {other}"), TokenKeysError::NotAKey(1)),
        ("\nnodekey:00", TokenKeysError::NotAKey(2)),
        (&format!("{one}\n{}", *secret), TokenKeysError::SigningKey(2)),
    ] {
        let found = TokenKeys::parse(text).expect_err("no keys");
        assert_eq!(found, error, "{text:?}");
        assert!(!found.to_string().contains(&secret[20..]));
    }
}

#[test]
fn a_signing_key_is_read_as_it_is_written_and_not_printed() {
    let key = key(1);
    let read: SigningKey = format!("{}\n", *key.to_text()).parse().expect("a key");
    assert_eq!(read.public(), key.public());
    assert_eq!(format!("{key:?}"), "SigningKey(..)");
    assert_eq!(
        key.public().to_string().parse::<SigningKey>().expect_err("a public one"),
        SigningKeyTextError
    );
}

#[test]
fn a_token_says_what_its_issuer_claimed_to_any_reader() {
    let token = issue(&key(1), &claims());
    assert_eq!(read_unverified(&token), Ok(claims()));
    assert_eq!(keys(&[&key(2), &key(1)]).verify(&token), Ok((claims(), key(1).public())));
    assert!(token.as_str().len() < 512, "{} characters", token.as_str().len());
    assert_eq!(key(1).issue(&Claims { expires: i64::MAX, ..claims() }), Err(BeyondCalendar));
}

/// pasetors is the oracle, with an Ed25519 of its own: keys in their text form, and tokens with and without a footer.
#[test]
fn keys_and_tokens_are_those_of_another_implementation() {
    for seed in 1..=20 {
        let ours = key(seed);
        let secret = AsymmetricSecretKey::<V4>::try_from(&**ours.to_text()).expect("a signing key");
        let public = AsymmetricPublicKey::<V4>::try_from(&*ours.public().to_string()).expect("a public key");
        let claims = Claims { client: node(seed), relay: (seed % 2 == 0).then(|| node(2)), ..claims() };
        let token = issue(&ours, &claims);
        let untrusted = UntrustedToken::<Public, V4>::try_from(token.as_str()).expect("a token");
        let trusted = PublicToken::verify(&public, &untrusted, None, None).expect("a signature");
        let message = claims.write().expect("JSON");
        assert_eq!(trusted.payload().as_bytes(), message);

        for footer in [None, Some(&b"{\"kid\":\"1\"}"[..])] {
            let theirs = PublicToken::sign(&secret, &message, footer, None).expect("a token");
            let theirs: Token = theirs.parse().expect("a token");
            assert_eq!(keys(&[&key(99), &ours]).verify(&theirs), Ok((claims, ours.public())));
            assert_eq!(keys(&[&key(99)]).verify(&theirs), Err(TokenError::Forged));
        }
        let for_other_use =
            PublicToken::sign(&secret, &message, None, Some(b"another use")).expect("a token");
        assert_eq!(keys(&[&ours]).verify(&for_other_use.parse().expect("a token")), Err(TokenError::Forged));
    }
}
