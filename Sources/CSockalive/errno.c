/* The name of an error number: strerrorname_np(3) is a GNU extension of glibc 2.32. */
#include "CSockalive.h"

#include <features.h>
#include <string.h>

const char *sockalive_errno_name(int error)
{
#if __GLIBC_PREREQ(2, 32)
    return strerrorname_np(error);
#else
    (void)error;
    return NULL;
#endif
}
