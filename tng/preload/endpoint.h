/* An address and a port, whichever family a socket has. */
#ifndef TNG_ENDPOINT_H
#define TNG_ENDPOINT_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* IPv4 stands as ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2). */
struct endpoint {
    struct in6_addr address;
    uint16_t port; /* in the order of the host */
};

/* Octets of "[address]:port" with the final zero. */
#define ENDPOINT_TEXT (INET6_ADDRSTRLEN + sizeof "[]:65535")

/* False: not an IP address, or cut short. */
bool read_endpoint(const struct sockaddr *from, socklen_t length, struct endpoint *into);

/* The size of what was written; `family` is AF_INET only for IPv4. */
socklen_t write_endpoint(const struct endpoint *from, sa_family_t family,
                         struct sockaddr_storage *into);

/* 127.0.0.1 for every socket that speaks IPv4, ::1 for those that cannot. */
struct endpoint loopback(uint16_t port, bool is_ipv6_only);

bool is_loopback(const struct endpoint *endpoint);
bool is_ipv4(const struct endpoint *endpoint);

/* "a.b.c.d:port" or "[v6]:port". */
void print_endpoint(const struct endpoint *from, char into[ENDPOINT_TEXT]);

#endif
