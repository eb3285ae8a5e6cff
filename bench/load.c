/* Load for the benchmarks: backends that cost next to nothing, and clients that count.
 *
 *   load serve bulk|http|sse       listen on a free port of loopback, print it, serve until killed
 *   load forward                   the same as an HTTP proxy for CONNECT to loopback that does nothing
 *                                  else: the least that stands between a client and its service
 *   load bulk|churn|keepalive|first|sse|idle [options]
 *                                  one run; the last line of output is a JSON object
 *
 *   -p PORT   the service, or the port of the egress that stands for it
 *   -x PORT   reach it by CONNECT through the HTTP proxy on this port; 0 or absent: directly
 *   -n COUNT  connections at the same time
 *   -t S      seconds to measure
 *   -u        bulk: upload instead of download
 *   -r        answers may come with other header fields, and in chunks: an HTTP gateway wrote them
 *
 * `first` opens a stream of server-sent events for each measurement, and leaves after its first
 * token, which the service sends at once.
 *
 * `sse` and `idle` print a line "ready" when all connections are established and settled; `idle`
 * then keeps them until its input ends.  Every answer is checked: status, length, and of bulk data
 * the first MiB of each connection.  Whatever is wrong is counted in "errors", never passed over.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
    PATTERN = 1 << 20,      /* octets of the bulk pattern; also what is compared per connection */
    CHUNK = 32 << 20,       /* octets asked for at a time: long enough to hide the round trip */
    BODY = 128,             /* octets of an HTTP answer's body */
    TOKEN = 200,            /* octets of one server-sent event */
    TOKEN_MS = 20,          /* between two events of a stream: 50 tokens a second */
    MAX_STREAMS = 1 << 16,
    MAX_ERRORS = 1000,      /* a run that is this broken is not worth finishing */
    OPENING = 64,           /* connections of `sse` and `idle` that are opened at the same time */
    EVENTS = 256,
};

static const uint64_t SECOND = 1000000000;
static int service_port, proxy_port, connections = 1, is_upload, is_rewritten;
static double seconds = 3;
static int errors;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(2);
}

static struct sockaddr_in loopback(uint32_t host, int port) {
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons(port),
                                .sin_addr = {htonl(0x7f000000 | host)}};
}

static void no_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* Listens on a free port and says which. */
static int listen_and_tell(void) {
    struct sockaddr_in at = loopback(1, 0);
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (void *)&at, sizeof at) || listen(fd, 8192) ||
        getsockname(fd, (void *)&at, &size))
        die("listen");
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    return fd;
}

/* Connects to the proxy, or directly; -1 on failure.  Source addresses differ, because short
 * connections use up the ports of one address. */
static int dial(int flags) {
    static uint32_t turn;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | flags, 0);
    if (fd < 0) return -1;
    no_delay(fd);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    struct sockaddr_in from = loopback(2 + __sync_fetch_and_add(&turn, 1) % 32, 0);
    struct sockaddr_in to = loopback(1, proxy_port ? proxy_port : service_port);
    if (bind(fd, (void *)&from, sizeof from) ||
        (connect(fd, (void *)&to, sizeof to) && errno != EINPROGRESS)) {
        close(fd);
        return -1;
    }
    return fd;
}

static char connect_request[128];
static int connect_size;

static void make_connect_request(void) {
    connect_size = sprintf(connect_request,
                           "CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n",
                           service_port, service_port);
}

/* ---- bulk: a header asks for CHUNK octets one way or the other, again and again ---- */

struct order {
    uint64_t kind; /* DOWN, UP, or UP_COMPARED */
    uint64_t size;
};
enum { DOWN = 1, UP = 2, UP_COMPARED = 3 };

static char *pattern;
static int pattern_fd;

static void make_pattern(void) {
    pattern_fd = memfd_create("pattern", 0);
    if (pattern_fd < 0 || ftruncate(pattern_fd, PATTERN)) die("memfd");
    pattern = mmap(0, PATTERN, PROT_READ | PROT_WRITE, MAP_SHARED, pattern_fd, 0);
    if (pattern == MAP_FAILED) die("mmap");
    uint64_t x = 0x9e3779b97f4a7c15;
    for (int i = 0; i < PATTERN / 8; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        ((uint64_t *)pattern)[i] = x;
    }
}

static int receive_all(int fd, void *buffer, size_t size) {
    return recv(fd, buffer, size, MSG_WAITALL) == (ssize_t)size ? 0 : -1;
}

static int send_pattern(int fd, uint64_t size) {
    for (uint64_t sent = 0; sent < size;) {
        off_t at = sent % PATTERN;
        uint64_t most = PATTERN - at;
        ssize_t count = sendfile(fd, pattern_fd, &at, size - sent < most ? size - sent : most);
        if (count <= 0) return -1;
        sent += count;
    }
    return 0;
}

static int drop(int fd, uint64_t size) {
    while (size) {
        ssize_t count = recv(fd, 0, size > (4 << 20) ? 4 << 20 : size, MSG_TRUNC);
        if (count <= 0) return -1;
        size -= count;
    }
    return 0;
}

static int compare(int fd) {
    char buffer[1 << 16];
    for (size_t at = 0; at < PATTERN;) {
        size_t most = PATTERN - at < sizeof buffer ? PATTERN - at : sizeof buffer;
        ssize_t count = recv(fd, buffer, most, 0);
        if (count <= 0 || memcmp(buffer, pattern + at, count)) return -1;
        at += count;
    }
    return 0;
}

static void *serve_bulk_connection(void *argument) {
    int fd = (int)(intptr_t)argument, failed = 0;
    struct order order;
    no_delay(fd);
    while (!failed && !receive_all(fd, &order, sizeof order)) {
        if (order.kind == DOWN) {
            failed = send_pattern(fd, order.size);
        } else {
            failed = order.kind == UP ? drop(fd, order.size) : compare(fd);
            if (!failed) failed = send(fd, "k", 1, MSG_NOSIGNAL) != 1;
        }
    }
    close(fd);
    return 0;
}

static void serve_bulk(void) {
    make_pattern();
    int listener = listen_and_tell();
    for (;;) {
        pthread_t thread;
        int fd = accept(listener, 0, 0);
        if (fd >= 0 && !pthread_create(&thread, 0, serve_bulk_connection, (void *)(intptr_t)fd))
            pthread_detach(thread);
    }
}

static int connect_through_proxy(int fd) {
    char answer[1024];
    int filled = 0;
    if (send(fd, connect_request, connect_size, MSG_NOSIGNAL) != connect_size) return -1;
    while (filled < 4 || memcmp(answer + filled - 4, "\r\n\r\n", 4)) {
        if (filled == sizeof answer || recv(fd, answer + filled, 1, 0) != 1) return -1;
        filled++;
    }
    return strncmp(answer + 9, "200", 3) ? -1 : 0;
}

static int transfer(int fd, uint64_t size, int is_compared) {
    struct order order = {is_upload ? (is_compared ? UP_COMPARED : UP) : DOWN, size};
    char done;
    if (send(fd, &order, sizeof order, MSG_NOSIGNAL) != sizeof order) return -1;
    if (is_upload) return send_pattern(fd, size) || receive_all(fd, &done, 1) ? -1 : 0;
    return is_compared ? compare(fd) : drop(fd, size);
}

static uint64_t deadline, moved;

static void *run_bulk_connection(void *unused) {
    (void)unused;
    int fd = dial(0);
    int failed = fd < 0 || (proxy_port && connect_through_proxy(fd)) || transfer(fd, PATTERN, 1);
    if (!failed) __sync_fetch_and_add(&moved, PATTERN);
    while (!failed && now() < deadline) {
        failed = transfer(fd, CHUNK, 0);
        if (!failed) __sync_fetch_and_add(&moved, CHUNK);
    }
    if (failed) __sync_fetch_and_add(&errors, 1);
    if (fd >= 0) close(fd);
    return 0;
}

static void run_bulk(void) {
    pthread_t threads[1024];
    if (connections > 1024) connections = 1024;
    make_pattern();
    uint64_t began = now();
    deadline = began + seconds * SECOND;
    for (int i = 0; i < connections; i++) pthread_create(threads + i, 0, run_bulk_connection, 0);
    for (int i = 0; i < connections; i++) pthread_join(threads[i], 0);
    printf("{\"wall_s\":%.4f,\"octets\":%lu,\"errors\":%d}\n", (now() - began) / 1e9, moved, errors);
}

/* ---- backends driven by epoll ---- */

struct peer {
    int fd, filled, is_streaming;
    uint32_t sequence;
    uint64_t next;
    char buffer[1024];
};

static int poller;

static void watch(int fd, uint32_t events, void *owner, int operation) {
    struct epoll_event event = {.events = events, .data.ptr = owner};
    epoll_ctl(poller, operation, fd, &event);
}

static void accept_peers(int listener) {
    int fd;
    while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
        struct peer *peer = calloc(1, sizeof *peer);
        if (!peer) die("calloc");
        no_delay(fd);
        peer->fd = fd;
        watch(fd, EPOLLIN, peer, EPOLL_CTL_ADD);
    }
}

/* Reads what is there: 1 octets, 0 nothing, -1 the end. */
static int fill(int fd, char *buffer, int *filled, int size) {
    ssize_t count = recv(fd, buffer + *filled, size - *filled, 0);
    if (count < 0 && errno == EAGAIN) return 0;
    if (count <= 0) return -1;
    *filled += count;
    return 1;
}

/* Octets of the head at the front of the buffer, its empty line included; 0 when incomplete. */
static int head_size(const char *buffer, int filled) {
    const char *end = memmem(buffer, filled, "\r\n\r\n", 4);
    return end ? end + 4 - buffer : 0;
}

static char answer[512];
static int answer_size;

static void make_answer(void) {
    answer_size = sprintf(answer,
                          "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n",
                          BODY);
    memset(answer + answer_size, 'x', BODY);
    answer_size += BODY;
}

static void serve_http(void) {
    make_answer();
    int listener = listen_and_tell();
    fcntl(listener, F_SETFL, O_NONBLOCK);
    poller = epoll_create1(0);
    watch(listener, EPOLLIN, 0, EPOLL_CTL_ADD);
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(poller, events, EVENTS, -1), head;
        for (int i = 0; i < count; i++) {
            struct peer *peer = events[i].data.ptr;
            if (!peer) {
                accept_peers(listener);
                continue;
            }
            int got = fill(peer->fd, peer->buffer, &peer->filled, sizeof peer->buffer);
            while (got > 0 && (head = head_size(peer->buffer, peer->filled))) {
                peer->filled -= head;
                memmove(peer->buffer, peer->buffer + head, peer->filled);
                if (send(peer->fd, answer, answer_size, MSG_NOSIGNAL) != answer_size) got = -1;
            }
            if (got < 0) {
                close(peer->fd);
                free(peer);
            }
        }
    }
}

static struct peer *streams[MAX_STREAMS];
static int stream_count;

/* Sends the next token of a stream; what does not fit is left out, and seen as missing. */
static void send_token(struct peer *peer) {
    char token[TOKEN + 1];
    int size = sprintf(token, "data: {\"t\":%020lu,\"s\":%010u,\"p\":\"", now(), peer->sequence);
    memset(token + size, 'p', TOKEN - size);
    memcpy(token + TOKEN - 4, "\"}\n\n", 4);
    ssize_t sent = send(peer->fd, token, TOKEN, MSG_NOSIGNAL);
    if (sent == TOKEN) {
        peer->sequence++;
    } else if (!(sent < 0 && errno == EAGAIN)) {
        close(peer->fd);
        peer->fd = -1;
    }
}

static void send_tokens(uint64_t at) {
    for (int i = 0; i < stream_count; i++) {
        struct peer *peer = streams[i];
        if (peer->fd < 0) {
            streams[i--] = streams[--stream_count];
            free(peer);
            continue;
        }
        if (peer->next > at) continue;
        send_token(peer);
        peer->next += TOKEN_MS * 1000000ull;
        if (peer->next < at) peer->next = at + TOKEN_MS * 1000000ull;
    }
}

static void start_stream(struct peer *peer) {
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    static unsigned seed = 1;
    if (stream_count == MAX_STREAMS) return;
    peer->is_streaming = 1;
    peer->next = now() + rand_r(&seed) % (TOKEN_MS * 1000) * 1000ull;
    streams[stream_count++] = peer;
    if (send(peer->fd, head, sizeof head - 1, MSG_NOSIGNAL) < 0) perror("send");
    send_token(peer);
}

static void serve_sse(void) {
    static struct peer ticks;
    struct itimerspec every_ms = {{0, 1000000}, {0, 1000000}};
    int listener = listen_and_tell(), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    fcntl(listener, F_SETFL, O_NONBLOCK);
    timerfd_settime(timer, 0, &every_ms, 0);
    poller = epoll_create1(0);
    watch(listener, EPOLLIN, 0, EPOLL_CTL_ADD);
    watch(timer, EPOLLIN, &ticks, EPOLL_CTL_ADD);
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(poller, events, EVENTS, -1), is_due = 0;
        for (int i = 0; i < count; i++) {
            struct peer *peer = events[i].data.ptr;
            uint64_t expirations;
            if (!peer) {
                accept_peers(listener);
            } else if (peer == &ticks) {
                is_due = read(timer, &expirations, sizeof expirations) > 0;
            } else if (peer->fd >= 0 &&
                       fill(peer->fd, peer->buffer, &peer->filled, sizeof peer->buffer) < 0) {
                close(peer->fd);
                peer->fd = -1;
                if (!peer->is_streaming) free(peer);
            } else if (peer->is_streaming) {
                peer->filled = 0;
            } else if (head_size(peer->buffer, peer->filled)) {
                start_stream(peer);
            }
        }
        if (is_due) send_tokens(now()); /* frees streams that ended: only after the events */
    }
}

/* ---- the bare forwarder: one accept, one connect, and octets both ways ----
 *
 * What any gateway does for a connection, and nothing more: no tunnel, no encryption, no limits, no
 * log.  Sending blocks, so one receiver that does not read holds up everybody: clients and services
 * of this file always read. */

struct end {
    int fd; /* -1: not connected yet */
    struct relay *relay;
};

struct relay {
    struct end client, service;
    struct relay *next_over;
    int is_over, filled;
    char head[256]; /* of the request */
};

static void accept_relays(int listener) {
    int fd;
    while ((fd = accept(listener, 0, 0)) >= 0) {
        struct relay *relay = calloc(1, sizeof *relay);
        if (!relay) die("calloc");
        no_delay(fd);
        relay->client = (struct end){fd, relay};
        relay->service = (struct end){-1, relay};
        watch(fd, EPOLLIN, &relay->client, EPOLL_CTL_ADD);
    }
}

/* The port of loopback that a request asks for; 0 if it asks for anything else. */
static int asked_port(const char *head) {
    static const char start[] = "CONNECT 127.0.0.1:";
    char *end;
    if (strncmp(head, start, sizeof start - 1)) return 0;
    long port = strtol(head + sizeof start - 1, &end, 10);
    return port > 0 && port < 1 << 16 && !strncmp(end, " HTTP/1.1\r\n", 11) ? port : 0;
}

/* Connects to the service and says so; 0 if the request is another one, or nobody listens. */
static int start_relay(struct relay *relay, int head) {
    static const char accepted[] = "HTTP/1.1 200 OK\r\n\r\n";
    struct sockaddr_in to = loopback(1, asked_port(relay->head));
    int fd = to.sin_port ? socket(AF_INET, SOCK_STREAM, 0) : -1, rest = relay->filled - head;
    if (fd < 0) return 0;
    relay->service.fd = fd;
    no_delay(fd);
    if (connect(fd, (void *)&to, sizeof to)) return 0; /* on loopback the outcome is there at once */
    watch(fd, EPOLLIN, &relay->service, EPOLL_CTL_ADD);
    return send(relay->client.fd, accepted, sizeof accepted - 1, MSG_NOSIGNAL) > 0 &&
           (!rest || send(fd, relay->head + head, rest, MSG_NOSIGNAL) == rest);
}

/* Does what is to be done with what came from one end; 0 when the relay is over. */
static int pass_on(struct end *from) {
    static char buffer[1 << 16];
    struct relay *relay = from->relay;
    if (relay->service.fd < 0) {
        int got = fill(from->fd, relay->head, &relay->filled, sizeof relay->head - 1);
        int head = got > 0 ? head_size(relay->head, relay->filled) : 0;
        return head ? start_relay(relay, head) : got >= 0;
    }
    int to = from == &relay->client ? relay->service.fd : relay->client.fd;
    ssize_t count = recv(from->fd, buffer, sizeof buffer, 0);
    return count > 0 && send(to, buffer, count, MSG_NOSIGNAL) == count;
}

static void close_relay(struct relay *relay) {
    close(relay->client.fd);
    if (relay->service.fd >= 0) close(relay->service.fd);
    relay->is_over = 1;
}

static void forward(void) {
    int listener = listen_and_tell();
    fcntl(listener, F_SETFL, O_NONBLOCK);
    poller = epoll_create1(0);
    watch(listener, EPOLLIN, 0, EPOLL_CTL_ADD);
    for (;;) {
        struct epoll_event events[EVENTS];
        struct relay *over = 0; /* freed after the events: the other end may be among them */
        int count = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct end *end = events[i].data.ptr;
            if (!end) {
                accept_relays(listener);
            } else if (!end->relay->is_over && !pass_on(end)) {
                close_relay(end->relay);
                end->relay->next_over = over, over = end->relay;
            }
        }
        while (over) {
            struct relay *relay = over;
            over = relay->next_over;
            free(relay);
        }
    }
}

/* ---- latencies ---- */

static uint32_t *latencies; /* in units of 100 ns */
static size_t latency_count, latency_room;

static void add_latency(uint64_t ns) {
    if (latency_count == latency_room) {
        latency_room = latency_room ? latency_room * 2 : 1 << 16;
        latencies = realloc(latencies, latency_room * sizeof *latencies);
        if (!latencies) die("realloc");
    }
    latencies[latency_count++] = ns / 100 > UINT32_MAX ? UINT32_MAX : ns / 100;
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double quantile(double share) {
    return latency_count ? latencies[(size_t)((latency_count - 1) * share)] / 10.0 : 0;
}

static void print_result(double wall_s, int established, int gaps) {
    qsort(latencies, latency_count, sizeof *latencies, by_size);
    printf("{\"wall_s\":%.4f,\"count\":%zu,\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f,"
           "\"established\":%d,\"gaps\":%d,\"errors\":%d}\n",
           wall_s, latency_count, quantile(.5), quantile(.99), quantile(1), established, gaps,
           errors);
}

/* ---- clients driven by epoll ---- */

enum stage { CONNECTING, ASKING, WAITING, ESTABLISHED, BROKEN };

struct client {
    enum stage stage;
    int fd, filled;
    int is_chunked, size, left, skipped; /* of chunks: the size being read, octets of data left */
    uint32_t sequence;
    uint64_t began;
    char buffer[4096];
};

static const char REQUEST[] =
    "GET /v1/models HTTP/1.1\r\nHost: backend\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n";

static void give_up_on(struct client *client) {
    if (client->fd >= 0) close(client->fd);
    client->stage = BROKEN;
    errors++;
}

static void open_client(struct client *client) {
    client->began = now();
    client->filled = 0;
    client->stage = CONNECTING;
    client->fd = dial(SOCK_NONBLOCK);
    if (client->fd < 0)
        give_up_on(client);
    else
        watch(client->fd, EPOLLOUT, client, EPOLL_CTL_ADD);
}

static void request(struct client *client) {
    client->filled = 0;
    client->stage = WAITING;
    if (send(client->fd, REQUEST, sizeof REQUEST - 1, MSG_NOSIGNAL) < 0) give_up_on(client);
}

/* Takes a client from connecting to the answer; says whether there are octets of the answer. */
static int advance(struct client *client) {
    if (client->stage == CONNECTING) {
        int failure = 0;
        socklen_t size = sizeof failure;
        getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &failure, &size);
        if (failure) {
            give_up_on(client);
            return 0;
        }
        watch(client->fd, EPOLLIN, client, EPOLL_CTL_MOD);
        if (!proxy_port) {
            request(client);
        } else {
            client->stage = ASKING;
            if (send(client->fd, connect_request, connect_size, MSG_NOSIGNAL) < 0) give_up_on(client);
        }
        return 0;
    }
    int got = fill(client->fd, client->buffer, &client->filled, sizeof client->buffer);
    if (got < 0) give_up_on(client);
    if (got <= 0) return 0;
    if (client->stage != ASKING) return 1;
    if (head_size(client->buffer, client->filled)) {
        if (strncmp(client->buffer + 9, "200", 3))
            give_up_on(client);
        else
            request(client);
    }
    return 0;
}

static struct client *make_clients(void) {
    make_answer();
    make_connect_request();
    poller = epoll_create1(0);
    struct client *clients = calloc(connections, sizeof *clients);
    if (!clients) die("calloc");
    return clients;
}

/* Takes the framing of chunks out of what came from `from` on; -1 if the stream has ended. */
static int unframe(struct client *client, int from) {
    int to = from;
    for (int i = from; i < client->filled;) {
        if (client->left) {
            int count = client->filled - i < client->left ? client->filled - i : client->left;
            memmove(client->buffer + to, client->buffer + i, count);
            to += count, i += count, client->left -= count;
            if (!client->left) client->skipped = 2;
            continue;
        }
        char octet = client->buffer[i++];
        if (client->skipped) {
            client->skipped--;
        } else if (octet == '\n') {
            if (!client->size) return -1;
            client->left = client->size, client->size = 0;
        } else if (octet != '\r') {
            int digit = octet <= '9' ? octet - '0' : (octet | 32) - 'a' + 10;
            if (digit < 0 || digit > 15 || client->size >= 1 << 24) return -1;
            client->size = client->size * 16 + digit;
        }
    }
    client->filled = to;
    return 0;
}

/* Removes the head of an answer of events from the buffer: 1 done, 0 incomplete, -1 wrong. */
static int take_head(struct client *client) {
    int head = head_size(client->buffer, client->filled);
    if (!head) return 0;
    if (strncmp(client->buffer + 9, "200", 3)) return -1;
    client->buffer[head - 1] = 0;
    client->is_chunked = strcasestr(client->buffer, "\ntransfer-encoding: chunked") != 0;
    client->size = client->left = client->skipped = 0;
    client->filled -= head;
    memmove(client->buffer, client->buffer + head, client->filled);
    return client->is_chunked && unframe(client, 0) ? -1 : 1;
}

/* Whether the whole answer is there: 1 yes, 0 not yet, -1 it is another one. */
static int is_answered(const struct client *client) {
    if (!is_rewritten) {
        if (client->filled < answer_size) return 0;
        int is_same = client->filled == answer_size && !memcmp(client->buffer, answer, answer_size);
        return is_same ? 1 : -1;
    }
    int head = head_size(client->buffer, client->filled);
    if (!head || client->filled < head + BODY) return 0;
    int is_good = !strncmp(client->buffer + 9, "200", 3) && client->filled == head + BODY &&
                  !memcmp(client->buffer + head, answer + answer_size - BODY, BODY);
    return is_good ? 1 : -1;
}

/* Whether the first token is there. */
static int has_first_token(const struct client *client) {
    int head = head_size(client->buffer, client->filled);
    if (!head) return 0;
    if (strncmp(client->buffer + 9, "200", 3)) return -1;
    const char *token = memmem(client->buffer + head, client->filled - head, "data: {\"t\":", 11);
    return token && client->buffer + client->filled - token >= TOKEN;
}

/* One request per connection, up to its end or its first token, or one after the other on
 * connections that stay. */
static void run_requests(int is_kept, int is_first) {
    struct client *clients = make_clients();
    uint64_t began = now(), end = began + seconds * SECOND;
    for (int i = 0; i < connections; i++) open_client(clients + i);
    while (now() < end && errors < MAX_ERRORS) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(poller, events, EVENTS, 50);
        for (int i = 0; i < count; i++) {
            struct client *client = events[i].data.ptr;
            int is_asking = client->stage == ASKING;
            if (advance(client)) {
                int outcome = is_first ? has_first_token(client) : is_answered(client);
                if (outcome < 0) {
                    give_up_on(client);
                } else if (outcome > 0) {
                    add_latency(now() - client->began);
                    if (is_kept) {
                        client->began = now();
                        request(client);
                    } else {
                        close(client->fd);
                        open_client(client);
                    }
                }
            }
            if (is_kept && is_asking && client->stage == WAITING) client->began = now();
            if (client->stage == BROKEN) open_client(client);
        }
    }
    print_result((now() - began) / 1e9, connections, 0);
}

/* Takes whole tokens from the buffer; `since` 0: does not measure. */
static int take_tokens(struct client *client, uint64_t since) {
    int used = 0, gaps = 0;
    uint64_t at = now();
    for (; client->filled - used >= TOKEN; used += TOKEN) {
        const char *token = client->buffer + used;
        uint32_t sequence = strtoul(token + 36, 0, 10);
        if (memcmp(token, "data: {\"t\":", 11) || sequence != client->sequence) gaps++;
        client->sequence = sequence + 1;
        if (since && at >= since) add_latency(at - strtoull(token + 11, 0, 10));
    }
    client->filled -= used;
    memmove(client->buffer, client->buffer + used, client->filled);
    return gaps;
}

/* Opens all connections, a few at a time; then measures tokens, or waits for the input to end. */
static void run_held(int is_sse) {
    struct client *clients = make_clients();
    int opened = 0, settled = 0, established = 0, gaps = 0, is_ready = 0;
    uint64_t since = 0, end = now() + 60 * SECOND, began = now();
    while (now() < end && errors < MAX_ERRORS) {
        for (; opened < connections && opened - settled < OPENING; opened++) {
            open_client(clients + opened);
            if (clients[opened].stage == BROKEN) settled++;
        }
        if (!since && settled == connections) {
            since = now() + SECOND / 2; /* the rush of opening has to be over */
            end = is_sse ? since + seconds * SECOND : UINT64_MAX;
        }
        if (since && !is_ready && now() >= since) {
            is_ready = 1;
            printf("ready %d %.4f\n", established, (now() - began) / 1e9);
            fflush(stdout);
        }
        struct pollfd input = {.fd = 0, .events = POLLIN};
        if (is_ready && !is_sse && poll(&input, 1, 0) > 0) break;
        struct epoll_event events[EVENTS];
        int count = epoll_wait(poller, events, EVENTS, 20);
        for (int i = 0; i < count; i++) {
            struct client *client = events[i].data.ptr;
            enum stage before = client->stage;
            int from = client->filled, has_octets = advance(client);
            if (has_octets && client->stage == WAITING) {
                int outcome = is_sse ? take_head(client) : client->filled >= answer_size;
                if (outcome > 0) client->stage = ESTABLISHED;
                if (outcome < 0) give_up_on(client);
                established += client->stage == ESTABLISHED;
            } else if (has_octets && client->is_chunked && unframe(client, from)) {
                give_up_on(client);
            }
            if (has_octets && is_sse && client->stage == ESTABLISHED)
                gaps += take_tokens(client, since);
            settled += before < ESTABLISHED && client->stage >= ESTABLISHED;
        }
    }
    print_result(seconds, established, gaps);
}

static void usage(void) {
    fputs("expected: load serve bulk|http|sse, load forward, or "
          "load bulk|churn|keepalive|first|sse|idle "
          "-p PORT [-x PORT] [-n COUNT] [-t SECONDS] [-u] [-r]\n", stderr);
    exit(2);
}

int main(int count, char **words) {
    struct rlimit files;
    signal(SIGPIPE, SIG_IGN);
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if (count < 2) usage();
    if (!strcmp(words[1], "serve") && count == 3) {
        if (!strcmp(words[2], "bulk")) serve_bulk();
        if (!strcmp(words[2], "http")) serve_http();
        if (!strcmp(words[2], "sse")) serve_sse();
        usage();
    }
    if (!strcmp(words[1], "forward") && count == 2) forward();
    optind = 2;
    for (int option; (option = getopt(count, words, "p:x:n:t:ur")) > 0;) {
        switch (option) {
        case 'p': service_port = atoi(optarg); break;
        case 'x': proxy_port = atoi(optarg); break;
        case 'n': connections = atoi(optarg); break;
        case 't': seconds = atof(optarg); break;
        case 'u': is_upload = 1; break;
        case 'r': is_rewritten = 1; break;
        default: usage();
        }
    }
    if (!service_port || connections < 1) usage();
    make_connect_request();
    if (!strcmp(words[1], "bulk")) run_bulk();
    else if (!strcmp(words[1], "churn")) run_requests(0, 0);
    else if (!strcmp(words[1], "keepalive")) run_requests(1, 0);
    else if (!strcmp(words[1], "first")) run_requests(0, 1);
    else if (!strcmp(words[1], "sse")) run_held(1);
    else if (!strcmp(words[1], "idle")) run_held(0);
    else usage();
    return 0;
}
