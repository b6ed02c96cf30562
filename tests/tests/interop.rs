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
    "udp-allocate-same-pair" => a_pair_of_one_key_gets_no_session,
    "udp-train" => the_datagrams_of_a_train_arrive_as_they_were,
    "udp-train-of-two-sessions" => a_train_of_two_sessions_is_taken_apart,
    "udp-ping-zero-node-key" => a_ping_with_a_zero_node_key_passes_as_it_is,
    "udp-challenge-from-address-asked" => a_host_of_several_addresses_answers_from_the_one_asked,
    "udp-link-local" => a_client_with_a_scoped_address_is_served,
    "udp-lifetimes-told" => clients_are_told_the_lifetimes_of_their_session,
    "udp-end-unbound" => a_session_that_nobody_binds_ends,
    "udp-end-half-bound" => a_session_of_which_the_first_client_alone_binds_ends,
    "udp-end-other-half-bound" => a_session_of_which_the_second_client_alone_binds_ends,
    "udp-end-first-silent" => a_session_whose_first_client_fell_silent_ends,
    "udp-end-second-silent" => a_session_whose_second_client_fell_silent_ends,
    "udp-end-never-while-both-speak" => a_session_in_use_never_ends,
    "mesh-watch" => a_watcher_is_told_of_all_who_are_there_and_who_comes_and_goes,
    "mesh-watch-order" => a_watcher_is_told_of_everything_in_order,
    "mesh-watch-flags" => a_watcher_is_told_what_a_client_is_and_its_app_name,
    "mesh-watch-duplicates" => a_watcher_is_told_of_each_connection_and_of_the_last_ones_end,
    "mesh-watch-twice" => a_watcher_may_ask_again,
    "mesh-watch-own-key" => a_watcher_with_the_relays_own_key_is_told_nothing,
    "mesh-no-key" => mesh_frames_without_the_mesh_key_end_the_connection,
    "mesh-wrong-key" => the_holder_of_another_mesh_key_is_a_regular_client,
    "mesh-keyless-relay" => a_relay_without_a_mesh_key_has_no_mesh_peers,
    "mesh-key-spelling" => a_mesh_key_is_the_same_in_upper_and_lower_case,
    "mesh-key-malformed" => a_malformed_mesh_key_refuses_the_login,
    "mesh-prober" => a_prober_with_the_mesh_key_that_does_not_watch_is_told_nothing,
    "mesh-frame-lengths" => a_mesh_frame_of_wrong_length_ends_the_connection,
    "mesh-flags-refused" => a_relay_with_impossible_mesh_flags_does_not_start,
    "mesh-forward" => a_forwarded_packet_arrives_as_from_its_source,
    "mesh-forward-unknown" => who_forwards_to_an_unknown_key_is_told_not_here,
    "mesh-forward-source-gone" => the_end_of_a_forwarding_peer_is_not_its_sources_end,
    "mesh-close-peer" => a_mesh_peer_may_close_a_connection,
    "mesh-close-peer-duplicates" => a_mesh_peer_closes_all_connections_of_a_key,
    "mesh-loop-broken-by-client" => upstreams_watch_loop_survives_its_own_close,
    "mesh-loop-broken-on-the-way" => upstreams_watch_loop_survives_a_reset,
    "mesh-loop-broken-by-close-peer" => upstreams_watch_loop_survives_being_closed_by_a_peer,
    "mesh-loop-broken-while-busy" => upstreams_watch_loop_survives_a_reconnect_by_another_thread,
    "mesh-loop-own-key" => upstreams_watch_loop_ends_at_its_own_relay,
    "mesh-link-login" => a_link_logs_in_as_derpers_does,
    "mesh-link-cross" => packets_cross_links_in_both_directions,
    "mesh-link-one-hop" => a_forwarded_packet_is_not_forwarded_again,
    "mesh-link-late" => a_peer_that_was_not_there_is_dialled_again,
    "mesh-link-refused" => a_peer_with_another_mesh_key_is_dialled_again_but_not_at_once,
    "mesh-link-self" => a_relay_that_meshes_with_itself_dials_itself_once,
    "mesh-link-untrusted" => a_peer_without_a_trusted_certificate_gets_no_login,
    "mesh-link-untrusted-address" => a_peer_dialled_by_address_needs_a_certificate_for_it,
    "mesh-link-frames" => a_links_login_and_forwarded_packets_are_derpers,
    "mesh-link-claims" => what_a_link_takes_back_is_gone,
    "mesh-table-gone" => who_heard_from_a_key_at_a_peer_is_told_when_it_leaves,
    "mesh-table-local-wins" => a_key_here_and_there_gets_its_packets_here,
    "mesh-table-local-stays" => a_key_here_and_there_stays_here_when_it_leaves_there,
    "mesh-table-moves" => a_key_that_moves_between_peers_is_never_gone,
    "mesh-table-second-leaves" => a_key_at_two_peers_stays_when_the_later_one_leaves,
    "mesh-table-peer-restarts" => a_peers_restart_clears_its_keys_and_brings_them_back,
}

/// A case without a test here would never run.
#[test]
fn every_case_of_the_judge_is_a_test_here() {
    relay_tests::interop::check_cases(CASES);
}
