/* Addresses: from the system's form and back. */
#include "endpoint.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const unsigned char mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static void map_ipv4(const void *octets, struct in6_addr *into)
{
    memcpy(into->s6_addr, mapped_prefix, sizeof mapped_prefix);
    memcpy(into->s6_addr + sizeof mapped_prefix, octets, 4);
}

bool is_ipv4(const struct endpoint *endpoint)
{
    return IN6_IS_ADDR_V4MAPPED(&endpoint->address);
}

bool is_loopback(const struct endpoint *endpoint)
{
    if (is_ipv4(endpoint))
        return endpoint->address.s6_addr[12] == 127;
    return IN6_IS_ADDR_LOOPBACK(&endpoint->address);
}

bool read_endpoint(const struct sockaddr *from, socklen_t length, struct endpoint *into)
{
    if (from == NULL || length < sizeof from->sa_family)
        return false;
    /* Copied, because callers need not align what they pass. */
    if (from->sa_family == AF_INET && length >= sizeof(struct sockaddr_in)) {
        struct sockaddr_in four;
        memcpy(&four, from, sizeof four);
        map_ipv4(&four.sin_addr, &into->address);
        into->port = ntohs(four.sin_port);
        return true;
    }
    /* RFC 2133 had no scope; Linux still takes the shorter structure. */
    if (from->sa_family == AF_INET6 && length >= offsetof(struct sockaddr_in6, sin6_scope_id)) {
        struct sockaddr_in6 six;
        memcpy(&six, from, offsetof(struct sockaddr_in6, sin6_scope_id));
        into->address = six.sin6_addr;
        into->port = ntohs(six.sin6_port);
        return true;
    }
    return false;
}

socklen_t write_endpoint(const struct endpoint *from, sa_family_t family,
                         struct sockaddr_storage *into)
{
    memset(into, 0, sizeof *into);
    if (family == AF_INET) {
        struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(from->port)};
        memcpy(&four.sin_addr, from->address.s6_addr + sizeof mapped_prefix, 4);
        memcpy(into, &four, sizeof four);
        return sizeof four;
    }
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(from->port)};
    six.sin6_addr = from->address;
    memcpy(into, &six, sizeof six);
    return sizeof six;
}

struct endpoint loopback(uint16_t port, bool is_ipv6_only)
{
    struct endpoint made = {.address = IN6ADDR_LOOPBACK_INIT, .port = port};
    if (!is_ipv6_only)
        map_ipv4((const unsigned char[4]){127, 0, 0, 1}, &made.address);
    return made;
}

void print_endpoint(const struct endpoint *from, char into[ENDPOINT_TEXT])
{
    char address[INET6_ADDRSTRLEN];
    if (is_ipv4(from)) {
        inet_ntop(AF_INET, from->address.s6_addr + sizeof mapped_prefix, address, sizeof address);
        snprintf(into, ENDPOINT_TEXT, "%s:%u", address, (unsigned)from->port);
    } else {
        inet_ntop(AF_INET6, &from->address, address, sizeof address);
        snprintf(into, ENDPOINT_TEXT, "[%s]:%u", address, (unsigned)from->port);
    }
}
