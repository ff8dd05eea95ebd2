"""An operator's `userd dead-letters replay` that dies in the middle and is run again: a letter may be sent twice, its effect is there
once."""
import subprocess

import kafka

import fault_base
import oracle
import userd_service

LETTERS = 3000
FIRST_ID = 1500000000
FIRST_OFFSET = FIRST_ID  # where these letters claim to come from: no partition is that long
REPLAY_TIMEOUT_S = 120
# More than the load writes into the topic meanwhile.
SENT_BEFORE_THE_END = (300, 900)


class ReplayFault(fault_base.Fault):
    """Letters whose events make sense now, as after a limit that was raised."""

    hurts_calls = False

    def replay(self, stand):
        """The command."""
        return subprocess.Popen([stand.program, "dead-letters", "replay", "--all", "-c",
                                 stand.directory / "run.conf"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL, env=stand.environment())

    def replay_in_part(self, stand):
        """Killed when some letters are in their topic, and before it has noted them as handled."""
        source = kafka.KafkaConsumer(bootstrap_servers=stand.servers)
        partitions = oracle.all_partitions(["registration"])
        most = sum(source.end_offsets(partitions).values()) + self.random_.randint(*SENT_BEFORE_THE_END)
        process = self.replay(stand)
        while process.poll() is None and sum(source.end_offsets(partitions).values()) < most:
            pass
        self.kill([*userd_service.processes_under(process.pid), process.pid])
        process.wait()
        source.close()

    def strike(self, stand):
        first = FIRST_ID + self.random_.randrange(300) * LETTERS
        last = first + LETTERS - 1
        stand.write_dead_letters(first, last)
        stand.wait_until_drained("letters on their way")
        self.replay_in_part(stand)
        process = self.replay(stand)
        try:
            status = process.wait(REPLAY_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        assert status == 0, f"the second replay ended with {status}"
        userd_service.wait_for(lambda: stand.count_users(first, last) == LETTERS, "every letter in effect")
