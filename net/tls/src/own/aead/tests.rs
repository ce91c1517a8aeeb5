//! Tests of ring and aws-lc against each other. Each library is asked for by name, so that they run on every CPU.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use super::vaes::{Cpu, WipedKey};
use super::*;

const SUITES: [Suite; 3] = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::Chacha20Poly1305];
const HEADER: [u8; RECORD_HEADER] = [23, 3, 3, 1, 2];

fn secret(suite: Suite) -> Vec<u8> {
    let len = if suite == Suite::Aes128Gcm { 16 } else { 32 };
    (0..len).map(|i: u8| i.wrapping_mul(37).wrapping_add(11)).collect()
}

fn nonce(number: u8) -> Nonce {
    Nonce::new([number; NONCE_LEN])
}

fn ring(suite: Suite) -> Aead {
    let algorithm = vaes::algorithm(suite).unwrap_or(&ring::aead::CHACHA20_POLY1305);
    Aead::Ring(WipedKey::new(algorithm, &secret(suite)).expect("a key"))
}

fn aws_lc(suite: Suite) -> Aead {
    Aead::aws_lc(suite, &secret(suite)).expect("a key")
}

fn plaintext(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

fn sealed(key: &Aead, number: u8, len: usize) -> Vec<u8> {
    let mut body = [plaintext(len), vec![0; TAG_LEN]].concat();
    key.seal(nonce(number), &HEADER, &mut body).expect("a body that has room for a tag");
    body
}

#[test]
fn both_seal_to_the_same_bytes_and_open_what_the_other_sealed() {
    for suite in SUITES {
        let (ring, aws_lc) = (ring(suite), aws_lc(suite));
        for len in (0..700).chain([1_438, 11_500, 16_384, 16_385]) {
            let (of_ring, of_aws_lc) = (sealed(&ring, 5, len), sealed(&aws_lc, 5, len));
            assert!(of_ring == of_aws_lc, "{len} bytes under {suite:?}");
            for (key, mut body) in [(&ring, of_aws_lc), (&aws_lc, of_ring)] {
                let opened = key.open(nonce(5), &HEADER, &mut body).unwrap();
                assert!(opened == plaintext(len), "{len} bytes under {suite:?}");
            }
        }
    }
}

#[test]
fn neither_opens_what_was_changed() {
    for suite in SUITES {
        for key in [ring(suite), aws_lc(suite)] {
            let whole = sealed(&key, 1, 300);
            let refused = |number, header: &[u8; RECORD_HEADER], mut body: Vec<u8>| {
                assert_eq!(key.open(nonce(number), header, &mut body), Err(RecordError::BadRecordMac));
            };
            for bit in 0..8 * whole.len() {
                let mut body = whole.clone();
                body[bit / 8] ^= 1 << (bit % 8);
                refused(1, &HEADER, body);
            }
            for bit in 0..8 * RECORD_HEADER {
                let mut header = HEADER;
                header[bit / 8] ^= 1 << (bit % 8);
                refused(1, &header, whole.clone());
            }
            refused(2, &HEADER, whole.clone());
            for len in 0..whole.len() {
                refused(1, &HEADER, whole[..len].to_vec());
            }
            assert_eq!(key.open(nonce(1), &HEADER, &mut whole.clone()).unwrap(), plaintext(300));
        }
    }
}

#[test]
fn ring_is_for_aes_on_cpus_with_vaes_that_lack_avx_512() {
    for bits in 0..8 {
        let (vaes, avx2, avx512) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
        let cpu = Cpu { vaes, avx2, avx512 };
        assert_eq!(vaes::is_faster(cpu), bits == 3, "{cpu:?}");
    }
    let here = vaes::is_faster(Cpu::detected());
    for (suite, expected) in
        [(Suite::Aes128Gcm, here), (Suite::Aes256Gcm, here), (Suite::Chacha20Poly1305, false)]
    {
        let key = Aead::new(suite, &secret(suite)).unwrap();
        assert_eq!(matches!(key, Aead::Ring(_)), expected, "{suite:?}");
    }
}

#[test]
fn a_key_of_a_wrong_length_is_refused() {
    for suite in SUITES {
        assert!(matches!(Aead::new(suite, &[7; 17]), Err(TlsError::Unusable)), "{suite:?}");
    }
}

/// An idle connection has two of these.
#[test]
fn a_key_of_ring_takes_no_more_memory_than_one_of_aws_lc() {
    let (_, on_the_heap) = WipedKey::new(&ring::aead::AES_128_GCM, &[7; 16]).unwrap().place();
    // `EVP_AEAD_CTX` has 584 bytes, and `OPENSSL_malloc` 8 before them.
    assert!(on_the_heap <= 584 + 8, "{on_the_heap} bytes");
    assert_eq!(size_of::<Aead>(), size_of::<LessSafeKey>());
}

/// The memory of this process is read where a key was, as an overflow would disclose it.
#[test]
fn nothing_of_a_key_of_ring_is_left_in_memory() {
    let memory = File::open("/proc/self/mem").unwrap();
    for suite in [Suite::Aes128Gcm, Suite::Aes256Gcm] {
        let algorithm = vaes::algorithm(suite).unwrap();
        let zeros = WipedKey::new(algorithm, &vec![0; algorithm.key_len()]).unwrap();
        let key = WipedKey::new(algorithm, &secret(suite)).unwrap();
        let (place, len) = key.place();
        let (mut known, mut before, mut after) = (vec![0; len], vec![0; len], vec![0; len]);
        memory.read_exact_at(&mut known, zeros.place().0).unwrap();
        memory.read_exact_at(&mut before, place).unwrap();
        drop(key);
        memory.read_exact_at(&mut after, place).unwrap();

        let holds = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        assert!(holds(&before, &secret(suite)), "the key is where it is looked for");
        let secrets: Vec<&[u8]> = before.chunks(8).filter(|part| !holds(&known, part)).collect();
        assert!(secrets.len() > 2 * 11, "and the keys of the rounds, two parts each: {}", secrets.len());
        for part in secrets {
            assert!(!holds(&after, part), "{part:02x?} of {suite:?} is left");
        }
    }
}

/// What each library takes for a record on this CPU: `cargo test --release -p towpath-tls --lib -- --ignored --nocapture
/// libraries`.
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout, reason = "a measurement says what it found")]
fn libraries_compared() {
    fn nanoseconds(mut each: impl FnMut()) -> f64 {
        const ROUNDS: u32 = 20_000;
        let mut best = f64::MAX;
        for _ in 0..5 {
            let start = Instant::now();
            (0..ROUNDS).for_each(|_| each());
            best = best.min(start.elapsed().as_nanos() as f64 / f64::from(ROUNDS));
        }
        best
    }
    for suite in SUITES {
        for (library, key) in [("aws-lc", aws_lc(suite)), ("ring", ring(suite))] {
            for len in [64, 150, 1_438, 11_500, 16_384] {
                let mut body = vec![0; len + TAG_LEN];
                let seal = nanoseconds(|| key.seal(nonce(1), &HEADER, &mut body).unwrap());
                let whole = sealed(&key, 1, len);
                let open = nanoseconds(|| {
                    body.copy_from_slice(&whole);
                    black_box(key.open(nonce(1), &HEADER, &mut body).unwrap());
                });
                println!("{suite:?} of {library}, {len} bytes: seal {seal:.0} ns, open {open:.0} ns");
            }
        }
        let made = [nanoseconds(|| drop(aws_lc(suite))), nanoseconds(|| drop(ring(suite)))];
        println!("{suite:?}: a key comes and goes in {:.0} ns of aws-lc, {:.0} ns of ring", made[0], made[1]);
    }
}
