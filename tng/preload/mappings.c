/* Reading the mappings: JSON of exactly one form, written by the gateway, read once per program. */
#include "mappings.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PORTS = 65536, MAX_KEY = 32, MAX_TEXT = 64, MAX_ITEMS = 65536 };

/* -- JSON ---------------------------------------------------------------------------------- */

typedef bool (*reader)(const char **at, const char *key, void *into);

static bool take(const char **at, char sign)
{
    while (**at == ' ' || **at == '\t' || **at == '\n' || **at == '\r')
        ++*at;
    if (**at != sign)
        return false;
    ++*at;
    return true;
}

/* Keys, addresses: nothing that would have to be escaped. */
static bool read_text(const char **at, char *into, size_t size)
{
    if (!take(at, '"'))
        return false;
    size_t length = strcspn(*at, "\"\\");
    if ((*at)[length] != '"' || length >= size)
        return false;
    memcpy(into, *at, length);
    into[length] = '\0';
    *at += length + 1;
    return true;
}

static bool read_port(const char **at, uint16_t *into)
{
    unsigned long value = 0;
    while (**at == ' ')
        ++*at;
    const char *first = *at;
    while (**at >= '0' && **at <= '9' && value < PORTS)
        value = value * 10 + (unsigned long)(*(*at)++ - '0');
    *into = (uint16_t)value;
    return *at != first && value > 0 && value < PORTS;
}

static bool read_flag(const char **at, bool *into)
{
    while (**at == ' ')
        ++*at;
    *into = strncmp(*at, "true", 4) == 0;
    if (!*into && strncmp(*at, "false", 5) != 0)
        return false;
    *at += *into ? 4 : 5;
    return true;
}

static bool read_object(const char **at, reader read_member, void *into)
{
    if (!take(at, '{'))
        return false;
    if (take(at, '}'))
        return true;
    do {
        char key[MAX_KEY];
        if (!read_text(at, key, sizeof key) || !take(at, ':') || !read_member(at, key, into))
            return false;
    } while (take(at, ','));
    return take(at, '}');
}

/* Read a list of objects into memory that grows; each begins as zeros. */
static bool read_list(const char **at, reader read_member, void **items, size_t *count, size_t size)
{
    if (*items != NULL || !take(at, '['))
        return false;
    if (take(at, ']'))
        return true;
    do {
        char *grown = *count < MAX_ITEMS ? realloc(*items, (*count + 1) * size) : NULL;
        if (grown == NULL)
            return false;
        *items = grown;
        memset(grown + *count * size, 0, size);
        if (!read_object(at, read_member, grown + *count * size))
            return false;
        ++*count;
    } while (take(at, ','));
    return take(at, ']');
}

static bool read_whole(const char *text, reader read_member, void *into)
{
    return text == NULL || (read_object(&text, read_member, into) && take(&text, '\0'));
}

/* -- what is in it ------------------------------------------------------------------------- */

static bool read_network(const char **at, struct rule *rule)
{
    char text[MAX_TEXT];
    if (!read_text(at, text, sizeof text))
        return false;
    if (strcmp(text, "*") == 0)
        return true;
    char *slash = strchr(text, '/');
    if (slash != NULL)
        *slash = '\0';
    unsigned char four[4];
    unsigned bits = 128, mapped = 0;
    if (inet_pton(AF_INET, text, four) == 1) {
        bits = 32;
        mapped = 96;
        rule->network.s6_addr[10] = rule->network.s6_addr[11] = 0xff;
        memcpy(rule->network.s6_addr + 12, four, 4);
    } else if (inet_pton(AF_INET6, text, &rule->network) != 1) {
        return false;
    }
    unsigned long prefix = bits;
    if (slash != NULL) {
        char *end;
        prefix = strtoul(slash + 1, &end, 10);
        if (slash[1] < '0' || slash[1] > '9' || *end != '\0' || prefix > bits)
            return false;
    }
    rule->prefix = mapped + (unsigned)prefix;
    return true;
}

static bool read_rule(const char **at, const char *key, void *into)
{
    struct rule *rule = into;
    if (strcmp(key, "host_cidr") == 0)
        return read_network(at, rule);
    if (strcmp(key, "port") == 0)
        return read_port(at, &rule->port);
    return strcmp(key, "port_end") == 0 && read_port(at, &rule->port_end);
}

static bool read_ingress(const char **at, const char *key, void *into)
{
    struct ingress *ingress = into;
    if (strcmp(key, "proxy_port") == 0)
        return read_port(at, &ingress->proxy_port);
    if (strcmp(key, "capture_local_traffic") == 0)
        return read_flag(at, &ingress->captures_local);
    if (strcmp(key, "may_be_silent") == 0)
        return read_flag(at, &ingress->may_be_silent);
    return strcmp(key, "capture_rules") == 0 &&
           read_list(at, read_rule, (void **)&ingress->rules, &ingress->rule_count,
                     sizeof *ingress->rules);
}

static bool read_ingresses(const char **at, const char *key, void *into)
{
    struct mappings *all = into;
    return strcmp(key, "ingresses") == 0 &&
           read_list(at, read_ingress, (void **)&all->ingresses, &all->ingress_count,
                     sizeof *all->ingresses);
}

static bool read_egress(const char **at, const char *key, void *into)
{
    struct egress *egress = into;
    if (strcmp(key, "origin_port") == 0)
        return read_port(at, &egress->origin_port);
    return strcmp(key, "real_port") == 0 && read_port(at, &egress->real_port);
}

static bool read_egresses(const char **at, const char *key, void *into)
{
    struct mappings *all = into;
    return strcmp(key, "entries") == 0 &&
           read_list(at, read_egress, (void **)&all->egresses, &all->egress_count,
                     sizeof *all->egresses);
}

static bool complete_rules(struct ingress *ingress)
{
    for (size_t i = 0; i < ingress->rule_count; i++) {
        struct rule *rule = &ingress->rules[i];
        if (rule->port_end == 0)
            rule->port_end = rule->port;
        if (rule->port == 0 || rule->port_end < rule->port)
            return false;
    }
    return true;
}

static bool complete_ingress(struct ingress *ingress)
{
    if (ingress->proxy_port == 0 || !complete_rules(ingress))
        return false;
    /* Pages that no connection needs are never made. */
    void *table = mmap(NULL, PORTS * sizeof *ingress->destinations, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ingress->destinations = table;
    return table != MAP_FAILED;
}

bool read_mappings(const char *ingress_text, const char *egress_text, struct mappings *into)
{
    if (!read_whole(ingress_text, read_ingresses, into) ||
        !read_whole(egress_text, read_egresses, into))
        return false;
    for (size_t i = 0; i < into->ingress_count; i++)
        if (!complete_ingress(&into->ingresses[i]))
            return false;
    for (size_t i = 0; i < into->egress_count; i++)
        if (into->egresses[i].origin_port == 0 || into->egresses[i].real_port == 0)
            return false;
    return true;
}

bool rule_matches(const struct rule *rule, const struct endpoint *destination)
{
    if (destination->port < rule->port || destination->port > rule->port_end)
        return false;
    size_t whole = rule->prefix / 8;
    unsigned rest = rule->prefix % 8;
    const unsigned char *have = destination->address.s6_addr, *want = rule->network.s6_addr;
    if (memcmp(have, want, whole) != 0)
        return false;
    return rest == 0 || ((have[whole] ^ want[whole]) >> (8 - rest)) == 0;
}

/* -- what was done ------------------------------------------------------------------------- */

/* No lock: signal handlers and children of fork come here too.  Who writes has just been given
   the port by the system, and nobody else asks for it yet; the port goes last and says "whole". */
void remember(struct original *into, const struct endpoint *endpoint)
{
    uint64_t halves[2];
    memcpy(halves, &endpoint->address, sizeof halves);
    atomic_store_explicit(&into->port, 0, memory_order_release);
    atomic_store_explicit(&into->high, halves[0], memory_order_relaxed);
    atomic_store_explicit(&into->low, halves[1], memory_order_relaxed);
    atomic_store_explicit(&into->port, endpoint->port, memory_order_release);
}

bool recall(struct original *from, struct endpoint *into)
{
    uint32_t port = atomic_load_explicit(&from->port, memory_order_acquire);
    uint64_t halves[2] = {atomic_load_explicit(&from->high, memory_order_relaxed),
                          atomic_load_explicit(&from->low, memory_order_relaxed)};
    memcpy(&into->address, halves, sizeof halves);
    into->port = (uint16_t)port;
    return port != 0;
}
