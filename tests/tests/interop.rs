//! The stock Go client judges the daemon, one test per case. The file in `tests/interop` that defines a case
//! describes it. `JUDGE_SERVER=upstream` puts upstream's own servers in the daemon's place, to test the
//! judge.

use relay_tests::interop::judge_case;

macro_rules! cases {
    ($($case:literal => $test:ident,)*) => {
        const CASES: &[&str] = &[$($case),*];
        $(
            #[test]
            fn $test() {
                judge_case($case);
            }
        )*
    };
}

cases! {
    "derp-fast-start" => fast_start_is_used_and_works,
    "derp-fast-start-bytes" => fast_start_sends_no_http_response,
    "derp-normal-start" => normal_start_over_tls_1_3_answers_upstreams_101,
    "derp-tls12" => a_client_without_tls_1_3_is_served,
    "derp-plain" => a_client_without_tls_is_served,
    "derp-cert-pin" => a_certificate_pin_accepts_the_self_signed_certificate,
    "derp-server-info-first" => server_info_comes_before_any_packet,
    "derp-10k" => ten_thousand_packets_each_way_arrive_in_order_and_unchanged,
    "derp-large" => the_largest_packet_passes,
    "derp-empty-packet" => an_empty_packet_passes,
    "derp-ping" => a_ping_is_answered,
    "derp-notepreferred" => a_home_note_is_accepted,
    "derp-unknown-peer" => disco_to_an_unknown_peer_is_answered_not_here,
    "derp-unknown-peer-data" => data_to_an_unknown_peer_is_dropped_in_silence,
    "derp-disconnect-notice" => who_heard_from_a_peer_is_told_when_it_leaves,
    "derp-unknown-frame" => an_unknown_frame_is_skipped,
    "derp-byte-by-byte" => frames_cut_into_bytes_are_whole_again,
    "derp-oversize" => an_oversize_packet_ends_the_connection,
    "derp-bad-notepreferred" => a_home_note_of_wrong_length_ends_the_connection,
    "derp-http" => pages_beside_the_upgrade_answer_as_upstreams,
    "derp-http-204" => a_captive_portal_probe_gets_its_challenge_back,
    "stun" => stun_tells_the_clients_address,
    "udp-allocate" => an_allocation_is_upstreams_endpoint_and_repeatable,
    "udp-allocate-refused" => a_bad_allocation_is_refused_with_a_sentence,
    "udp-v4" => a_session_over_ipv4_carries_data_both_ways,
    "udp-v6" => a_session_over_ipv6_carries_data_both_ways,
    "udp-mixed" => a_session_across_families_carries_data_both_ways,
    "udp-rebind" => a_leg_moves_to_a_new_port_and_the_old_one_is_dropped,
    "udp-rebind-other-family" => a_leg_moves_to_the_other_family,
    "udp-duplicate-when-bound" => a_repeated_allocation_leaves_a_bound_session_alone,
    "udp-data-before-bound" => data_before_both_legs_are_bound_is_dropped,
    "udp-data-from-stranger" => data_from_a_stranger_is_dropped,
    "udp-answer-from-other-port" => an_answer_from_another_port_binds_nothing,
    "udp-answer-altered" => an_altered_answer_binds_nothing,
    "udp-answer-stale" => an_overtaken_or_used_challenge_binds_nothing,
    "udp-bind-generation-zero" => a_bind_of_generation_zero_is_ignored,
    "udp-bind-wrong-remote-key" => a_bind_for_another_peer_is_ignored,
    "udp-bind-inner-vni" => a_bind_whose_inner_vni_differs_is_ignored,
    "udp-bind-by-outsider" => a_bind_by_an_outsider_is_ignored,
    "udp-control-not-disco" => control_that_is_not_disco_is_dropped,
    "udp-strict-geneve" => a_geneve_header_no_client_would_take_is_dropped,
    "udp-short" => short_datagrams_are_dropped,
}

/// A case without a test here would never run.
#[test]
fn every_case_of_the_judge_is_a_test_here() {
    relay_tests::interop::check_cases(CASES);
}
