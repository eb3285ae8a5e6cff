/* libc's own calls, behind ours.  Alone here: with _GNU_SOURCE, glibc declares the socket calls
   with an argument type of its own, and they could not be defined in plain C. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

#include "proxy.h"

struct calls libc;

bool find_calls(void)
{
    /* POSIX has the system give functions as data pointers, and C has no cast for that. */
    *(void **)&libc.connect = dlsym(RTLD_NEXT, "connect");
    *(void **)&libc.bind = dlsym(RTLD_NEXT, "bind");
    *(void **)&libc.getsockname = dlsym(RTLD_NEXT, "getsockname");
    *(void **)&libc.getpeername = dlsym(RTLD_NEXT, "getpeername");
    *(void **)&libc.sendto = dlsym(RTLD_NEXT, "sendto");
    *(void **)&libc.sendmsg = dlsym(RTLD_NEXT, "sendmsg");
    return libc.connect != NULL && libc.bind != NULL && libc.getsockname != NULL &&
           libc.getpeername != NULL && libc.sendto != NULL && libc.sendmsg != NULL;
}
