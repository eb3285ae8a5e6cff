/* What is captured: the two mappings that the gateway puts into the environment.

   TNG_HOOK_INGRESS_MAPPINGS={"ingresses":[{"proxy_port":19524,"capture_local_traffic":true,
       "capture_rules":[{"host_cidr":"10.0.0.0/24","port":80},{"port":8080,"port_end":8090}]}]}
   TNG_HOOK_EGRESS_MAPPINGS={"entries":[{"origin_port":8000,"real_port":18098}]}

   Source: TNG 2.12.  `"may_be_silent": true` in an ingress is ours: its proxy knows Tng-Answer. */
#ifndef TNG_MAPPINGS_H
#define TNG_MAPPINGS_H

#include <stdatomic.h>
#include <stddef.h>

#include "endpoint.h"

/* Destinations that are captured: a network and a range of ports, both inclusive. */
struct rule {
    struct in6_addr network;
    unsigned prefix; /* bits, 0-128 */
    uint16_t port;
    uint16_t port_end;
};

/* Where a captured connection was meant to go, or a moved socket to listen. */
struct original {
    _Atomic uint64_t high;
    _Atomic uint64_t low;
    _Atomic uint32_t port; /* 0: nothing is known */
};

struct ingress {
    uint16_t proxy_port;
    bool captures_local;
    bool may_be_silent;
    struct rule *rules;
    size_t rule_count;
    /* By local port: connections to one proxy differ in it alone.  So nothing has to be told when
       a descriptor is copied or closed, and children of fork find what their parent wrote. */
    struct original *destinations;
};

struct egress {
    uint16_t origin_port;
    uint16_t real_port;
    struct original bound[2]; /* of IPv4 sockets, of IPv6 sockets */
};

struct mappings {
    struct ingress *ingresses;
    size_t ingress_count;
    struct egress *egresses;
    size_t egress_count;
};

/* Read both texts, either of which may be NULL; allocates.  False: not of the form above. */
bool read_mappings(const char *ingress_text, const char *egress_text, struct mappings *into);

bool rule_matches(const struct rule *rule, const struct endpoint *destination);

void remember(struct original *into, const struct endpoint *endpoint);
bool recall(struct original *from, struct endpoint *into);

#endif
