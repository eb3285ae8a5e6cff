/* Asking the gateway's private proxy for a connection, and libc's own calls. */
#ifndef TNG_PROXY_H
#define TNG_PROXY_H

#include "endpoint.h"

/* What libc has under the names that this library takes. */
struct calls {
    int (*connect)(int, const struct sockaddr *, socklen_t);
    int (*bind)(int, const struct sockaddr *, socklen_t);
    int (*getsockname)(int, struct sockaddr *, socklen_t *);
    int (*getpeername)(int, struct sockaddr *, socklen_t *);
    ssize_t (*sendto)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
    ssize_t (*sendmsg)(int, const struct msghdr *, int);
};

extern struct calls libc;

/* False: a name is missing. */
bool find_calls(void);

/* Connect `fd`, which is not connected yet, to the proxy, and ask it for `destination`.

   0: connected, and the gateway has said yes.  -1 with errno: EINPROGRESS, the proxy was asked and
   says nothing (`is_silent`); ECONNREFUSED, it said no; or what the system says. */
int connect_through(int fd, sa_family_t family, uint16_t proxy_port,
                    const struct endpoint *destination, bool is_silent);

#endif
