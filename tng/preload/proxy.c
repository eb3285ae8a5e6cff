/* Asking the private proxy: CONNECT of HTTP (RFC 9110 section 9.3.6), over loopback. */
#include "proxy.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#ifndef TCP_FASTOPEN_CONNECT
#define TCP_FASTOPEN_CONNECT 30
#endif

/* Milliseconds that loopback may take; longer means that the gateway hangs. */
enum { REACH_MS = 2000 };

/* Milliseconds for the answer: dialling and judging have limits of their own in the gateway. */
enum { ANSWER_MS = 60000 };

/* Octets of the head of an answer: ours has 40. */
enum { MAX_HEAD = 4096 };

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Wait until `ends_at`; an interrupted connect cannot be taken up again, so signals do not end it. */
static bool wait_for(int fd, short events, long ends_at)
{
    struct pollfd wanted = {.fd = fd, .events = events};
    for (;;) {
        long left = ends_at - now_ms();
        int found = poll(&wanted, 1, left > 0 ? (int)left : 0);
        if (found > 0)
            return true;
        if (found == 0) {
            errno = ETIMEDOUT;
            return false;
        }
        if (errno != EINTR)
            return false;
    }
}

static bool reach_proxy(int fd, sa_family_t family, uint16_t proxy_port)
{
    int off = 0;
    /* IPv6 sockets reach 127.0.0.1 too, unless they were told not to. */
    if (family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    /* With it, connect() would leave connecting to the first write, which is ours. */
    setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &off, sizeof off);
    struct sockaddr_storage address;
    struct endpoint proxy = loopback(proxy_port, false);
    socklen_t length = write_endpoint(&proxy, family, &address);
    if (libc.connect(fd, (struct sockaddr *)&address, length) == 0)
        return true;
    if (errno != EINPROGRESS && errno != EINTR)
        return false;
    if (!wait_for(fd, POLLOUT, now_ms() + REACH_MS))
        return false;
    int failure = 0;
    socklen_t size = sizeof failure;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &size) != 0)
        return false;
    errno = failure;
    return failure == 0;
}

static bool ask(int fd, const struct endpoint *destination, bool is_silent)
{
    char name[ENDPOINT_TEXT], request[4 * ENDPOINT_TEXT];
    print_endpoint(destination, name);
    int size = snprintf(request, sizeof request, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", name,
                        name, is_silent ? "Tng-Answer: none\r\n" : "");
    /* The buffer of a new connection is empty, and takes all of it. */
    ssize_t sent = libc.sendto(fd, request, (size_t)size, MSG_NOSIGNAL, NULL, 0);
    if (sent >= 0 && sent != size)
        errno = ECONNREFUSED;
    return sent == size;
}

/* Read the head of the answer, and nothing behind it: that is for the program. */
static bool is_accepted(int fd)
{
    char head[MAX_HEAD + 1];
    size_t size = 0;
    long ends_at = now_ms() + ANSWER_MS;
    while (size < MAX_HEAD) {
        ssize_t got = recv(fd, head + size, 1, MSG_DONTWAIT);
        if (got == 1) {
            head[++size] = '\0';
            if (size >= 4 && memcmp(head + size - 4, "\r\n\r\n", 4) == 0)
                break;
        } else if (got == 0) {
            errno = ECONNREFUSED;
            return false;
        } else if (errno == EAGAIN || errno == EINTR) {
            if (!wait_for(fd, POLLIN, ends_at))
                return false;
        } else {
            errno = ECONNREFUSED;
            return false;
        }
    }
    errno = ECONNREFUSED;
    return strncmp(head, "HTTP/1.1 200 ", 13) == 0 || strncmp(head, "HTTP/1.0 200 ", 13) == 0;
}

/* Back to a socket that was never connected, as a failed connect leaves it. */
static int undo(int fd)
{
    int failure = errno;
    struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    libc.connect(fd, &nowhere, sizeof nowhere);
    errno = failure;
    return -1;
}

int connect_through(int fd, sa_family_t family, uint16_t proxy_port,
                    const struct endpoint *destination, bool is_silent)
{
    int before = errno;
    if (!reach_proxy(fd, family, proxy_port) || !ask(fd, destination, is_silent))
        return undo(fd);
    if (is_silent) {
        errno = EINPROGRESS;
        return -1;
    }
    if (!is_accepted(fd))
        return undo(fd);
    errno = before;
    return 0;
}
