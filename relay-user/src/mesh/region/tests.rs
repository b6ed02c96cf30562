//! Names, addresses and links of a region, step by step.

use super::*;

const MS: u64 = 1_000_000;

fn key(n: u8) -> NodePublic {
    NodePublic::from_bytes([n; 32])
}

fn addr(n: u8) -> SocketAddr {
    ([10, 0, 0, n], 443).into()
}

fn place(host: HostIndex, n: u8) -> Place {
    Place { host, addr: addr(n) }
}

fn acts(act: impl FnOnce(&mut Vec<Act>)) -> Vec<Act> {
    let mut out = Vec::new();
    act(&mut out);
    out
}

/// The acts at this time, without jitter.
fn tick(region: &mut Region, now_ns: u64) -> Vec<Act> {
    acts(|out| _ = region.tick(now_ns, &mut || 0, out))
}

fn dialled(acts: &[Act]) -> Vec<(Place, DialId)> {
    let dial = |act: &Act| match *act {
        Act::Dial { place, dial } => Some((place, dial)),
        _ => None,
    };
    acts.iter().filter_map(dial).collect()
}

/// A region of one name with these addresses, all of which are being dialled.
fn named(addresses: &[u8]) -> (Region, Vec<(Place, DialId)>) {
    let mut region = Region::new(key(1), [None], 0);
    assert_eq!(tick(&mut region, 0), [Act::LookUp { host: 0 }]);
    let found: Vec<_> = addresses.iter().copied().map(addr).collect();
    region.looked_up(0, Some(&found), 0, &mut Vec::new());
    let dials = dialled(&tick(&mut region, 0));
    assert_eq!(dials.len(), addresses.len());
    (region, dials)
}

fn up(region: &mut Region, (place, dial): (Place, DialId), server: u8) -> Option<LinkId> {
    region.answered(place, dial, key(server), 0, &mut Vec::new())
}

#[test]
fn a_relay_with_many_addresses_has_one_link_and_when_it_ends_all_of_them_are_dialled() {
    let (mut region, dials) = named(&[2, 3, 4]);
    let link = up(&mut region, dials[0], 9).expect("the first is the link");
    assert_eq!(up(&mut region, dials[1], 9), None, "one link is enough");
    assert!(up(&mut region, dials[2], 8).is_some(), "another relay");
    assert_eq!(region.link_to(&key(9)), Some(link));
    let standings: Vec<_> = region.standings().map(|(_, _, standing)| standing).collect();
    assert_eq!(standings, [Standing::Up(link), Standing::Alias, Standing::Up(LinkId(2))]);
    region.ended(link, true, 2_000 * MS);
    let again = dialled(&tick(&mut region, 2_000 * MS));
    assert_eq!(again.iter().map(|(place, _)| place.addr).collect::<Vec<_>>(), [addr(2), addr(3)]);
    assert!(up(&mut region, again[1], 9).is_some(), "now by the other address");
}

#[test]
fn ourselves_are_known_by_key_at_any_address() {
    let (mut region, dials) = named(&[2, 3]);
    assert_eq!(up(&mut region, dials[0], 1), None);
    assert_eq!(dialled(&tick(&mut region, 50_000 * MS)).len(), 1, "only the other address");
    let standings: Vec<_> = region.standings().map(|(_, _, standing)| standing).collect();
    assert_eq!(standings, [Standing::Ourselves, Standing::Down]);
}

#[test]
fn a_vanished_address_closes_its_link_after_three_look_ups_in_a_row() {
    let (mut region, dials) = named(&[2, 3]);
    let link = up(&mut region, dials[0], 9).expect("a link");
    let rest = [addr(3)];
    let without = |region: &mut Region| acts(|out| region.looked_up(0, Some(&rest), 0, out));
    assert_eq!(without(&mut region), []);
    assert_eq!(without(&mut region), []);
    region.looked_up(0, Some(&[addr(2), addr(3)]), 0, &mut Vec::new());
    for _ in 1..LOOK_UPS_WITHOUT {
        assert_eq!(without(&mut region), [], "the count starts again");
    }
    assert_eq!(acts(|out| region.looked_up(0, None, 0, out)), [], "a failed look-up says nothing");
    assert_eq!(without(&mut region), [Act::GiveUp { link, place: place(0, 2), why: GivenUp::Vanished }]);
    assert_eq!(region.link_to(&key(9)), None);
    assert_eq!(region.standings().count(), 1);
}

#[test]
fn a_vanished_address_is_no_longer_dialled() {
    let (mut region, dials) = named(&[2]);
    let others = [addr(3)];
    for _ in 1..LOOK_UPS_WITHOUT {
        region.looked_up(0, Some(&others), 0, &mut Vec::new());
    }
    let (place, dial) = dials[0];
    assert_eq!(acts(|out| region.looked_up(0, Some(&others), 0, out)), [Act::Abandon { place, dial }]);
    assert_eq!(up(&mut region, dials[0], 9), None, "too late");
    assert_eq!(dialled(&tick(&mut region, 1_000 * MS)), [(self::place(0, 3), DialId(1))]);
}

#[test]
fn an_answer_without_a_family_says_nothing_about_it() {
    let mut region = Region::new(key(1), [None], 0);
    tick(&mut region, 0);
    let v6 = SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 2], 443));
    region.looked_up(0, Some(&[addr(2), v6]), 0, &mut Vec::new());
    for found in [&[addr(2)][..], &[], &[addr(2)], &[addr(2)], &[addr(2)]] {
        assert_eq!(acts(|out| region.looked_up(0, Some(found), 0, out)), [], "{found:?}");
    }
    assert_eq!(region.standings().count(), 2);
}

#[test]
fn a_late_answer_of_another_relay_changes_nothing() {
    let (mut region, dials) = named(&[2]);
    let (place, second) = dialled(&tick(&mut region, 600 * MS))[0];
    let link = up(&mut region, dials[0], 9).expect("a link");
    assert_eq!(region.answered(place, second, key(8), 0, &mut Vec::new()), None);
    assert_eq!(region.link_to(&key(9)), Some(link));
}

#[test]
fn names_are_looked_up_every_five_seconds_after_the_last_answer() {
    let (mut region, dials) = named(&[2]);
    up(&mut region, dials[0], 9);
    for second in 0..5 {
        region.heard(LinkId(1), second * 1000 * MS, second * 1000 * MS);
        assert!(!tick(&mut region, second * 1000 * MS).contains(&Act::LookUp { host: 0 }));
    }
    assert!(tick(&mut region, LOOK_UP_EVERY_NS).contains(&Act::LookUp { host: 0 }));
    assert!(!tick(&mut region, 3 * LOOK_UP_EVERY_NS).contains(&Act::LookUp { host: 0 }), "one at a time");
}

#[test]
fn a_name_without_an_address_is_looked_up_every_second() {
    let mut region = Region::new(key(1), [None], 0);
    assert_eq!(tick(&mut region, 0), [Act::LookUp { host: 0 }]);
    for (found, now_ns) in [(None, 0), (Some(&[][..]), 1_000 * MS)] {
        region.looked_up(0, found, now_ns, &mut Vec::new());
        assert_eq!(tick(&mut region, now_ns + 999 * MS), []);
        assert_eq!(tick(&mut region, now_ns + 1_000 * MS), [Act::LookUp { host: 0 }]);
    }
}

#[test]
fn an_address_in_place_of_a_name_is_never_looked_up() {
    let mut region = Region::new(key(1), [Some(addr(2))], 0);
    let all = tick(&mut region, 0);
    assert_eq!(dialled(&all), [(place(0, 2), DialId(1))]);
    assert_eq!(all.len(), 1);
}

#[test]
fn a_silent_link_is_given_up_and_its_other_addresses_are_dialled_with_it() {
    let (mut region, dials) = named(&[2, 3]);
    let link = up(&mut region, dials[0], 9).expect("a link");
    up(&mut region, dials[1], 9);
    assert!(tick(&mut region, 1_000 * MS).contains(&Act::Probe { link }));
    region.heard(link, 1_500 * MS, 1_500 * MS);
    assert!(!tick(&mut region, 4_400 * MS).contains(&Act::GiveUp {
        link,
        place: place(0, 2),
        why: GivenUp::Silent
    }));
    let all = tick(&mut region, 4_500 * MS);
    assert!(all.contains(&Act::GiveUp { link, place: place(0, 2), why: GivenUp::Silent }));
    assert_eq!(dialled(&all).len(), 2);
    region.ended(link, true, 4_500 * MS);
    assert_eq!(dialled(&tick(&mut region, 4_500 * MS)), [], "its end is known already");
}

#[test]
fn a_hint_dials_only_what_has_no_link() {
    let (mut region, dials) = named(&[2, 3]);
    up(&mut region, dials[0], 9);
    region.hint(200 * MS);
    let again = dialled(&tick(&mut region, 200 * MS));
    assert_eq!(again.iter().map(|(place, _)| place.addr).collect::<Vec<_>>(), [addr(3)]);
}
