/* Calls: what the decoder makes of them. */
#ifndef NY_SIM_CALL_H
#define NY_SIM_CALL_H
#include "ptx.h"
ny_ptx_exec ny_x_exit, ny_x_ret, ny_x_call, ny_x_copy_frame, ny_x_vprintf, ny_x_assertfail;
#endif
