#include "master/command_handover.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "common/scoreboard.h"
#include "common/settings_transfer.h"
#include "master/child_program.h"
#include "master/command_options.h"
#include "master/handover.h"

static int refuse_handover(int error, uint32_t format)
{
    if (error == -EPROTONOSUPPORT)
        (void)fprintf(stderr,
            "the running master hands over in format %u, expected %u: restart the service\n",
            format, HANDOVER_FORMAT);
    else
        (void)fprintf(stderr, "what is handed over cannot be read: %s\n", strerror(-error));
    return EX_PROTOCOL;
}

static int check_scoreboard(int fd)
{
    const struct scoreboard *scoreboard = NULL;
    uint32_t version = 0;
    int result = scoreboard_open_readonly(fd, &scoreboard, &version);
    if (result < 0) {
        (void)fprintf(stderr,
            "the running service has version %u of the scoreboard, expected %u: restart it\n",
            version, SCOREBOARD_VERSION);
        return EX_PROTOCOL;
    }
    scoreboard_close_readonly(scoreboard);
    return EX_OK;
}

static int check_programs(void)
{
    static const char *const programs[] = {CHILD_PROGRAM_WORKER, CHILD_PROGRAM_EVENTD};
    for (size_t i = 0; i < ARRAY_LENGTH(programs); i++) {
        char *path = NULL;
        if (child_program_find(programs[i], &path) < 0)
            return EX_UNAVAILABLE; /* said by it */
        free(path);
    }
    return EX_OK;
}

static int check_state(const Userd__Handover__State *state)
{
    struct settings settings;
    int result = settings_transfer_unpack(state->settings, &settings);
    if (result < 0) {
        (void)fprintf(stderr, "the settings in force cannot be read: %s\n", strerror(-result));
        return EX_PROTOCOL;
    }
    settings_cleanup(&settings);
    int status = check_scoreboard(state->scoreboard_fd);
    return status == EX_OK ? check_programs() : status;
}

/* A master of an earlier release takes nothing for an agreement but that line alone. */
int command_handover(int argc, char **argv)
{
    struct command_options options;
    int status = command_options_parse(argc, argv, COMMAND_HANDOVER_USAGE, &options);
    if (status != EX_OK)
        return status;
    int fd = handover_take_fd();
    if (fd < 0)
        return command_options_refuse(
            COMMAND_HANDOVER_USAGE, "nothing is handed over: a running userd asks this");
    Userd__Handover__State *state = NULL;
    uint32_t format = 0;
    int result = handover_read(fd, &state, &format);
    if (result < 0)
        return refuse_handover(result, format);
    status = check_state(state);
    userd__handover__state__free_unpacked(state, NULL);
    struct settings next = {0};
    struct settings_complaints warnings = {0}; /* said by the reload that follows */
    if (status == EX_OK)
        status = command_options_read_quietly(options.file, &next, &warnings);
    settings_complaints_cleanup(&warnings);
    settings_cleanup(&next);
    if (status == EX_OK)
        (void)fputs(HANDOVER_AGREEMENT, stdout);
    return status;
}
