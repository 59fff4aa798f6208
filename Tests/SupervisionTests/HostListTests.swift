import Foundation
import Supervision
import Testing

@Suite struct HostListTests {
    private func read(_ text: String) throws -> [HostEntry] {
        let path = NSTemporaryDirectory() + "hosts-\(UUID().uuidString)"
        try text.write(toFile: path, atomically: true, encoding: .utf8)
        defer { try? FileManager.default.removeItem(atPath: path) }
        return try HostList.hostfile(path)
    }

    @Test func readsAHostfile() throws {
        let hosts = try read(
            "# ours\nnode0 slots=4\n\n  node1   slots=2 max_slots=8 # old\nnode2\nnode0 slots=1\n")
        #expect(
            hosts == [HostEntry("node0", slots: 5), HostEntry("node1", slots: 2), HostEntry("node2")])
    }

    @Test(arguments: ["", "# nothing\n", "node0 4\n", "node0 slots=0\n", "node0 slots=many\n"])
    func refusesWhatIsNone(text: String) { #expect(throws: LaunchError.self) { try read(text) } }

    @Test func namesTheLine() {
        let error = #expect(throws: LaunchError.self) { try read("node0 slots=4\nnode1 four\n") }
        #expect(error?.message.contains(":2: found 'four'") == true)
    }

    @Test func readsAList() throws {
        #expect(
            try HostList.list("a:2,10.0.0.7,c:1")
                == [HostEntry("a", slots: 2), HostEntry("10.0.0.7"), HostEntry("c", slots: 1)])
        for text in ["", "a:", "a:0", ":2", "a:1:2"] {
            #expect(throws: LaunchError.self) { try HostList.list(text) }
        }
    }

    /// ssh would interpret the first as an option, which can run any command on this host.
    @Test(arguments: [
        "-oProxyCommand=touch${IFS}x", "--", "node0;reboot", "$(id)", "a`id`", "user@node0", "nöde",
        "a\u{1b}[2J", "a\\b", "a/b",
    ])
    func refusesNamesThatAreMoreThanNames(name: String) throws {
        let inFile = #expect(throws: LaunchError.self) { try read("node0\n\(name) slots=2\n") }
        #expect(inFile?.exitStatus == 2 && inFile?.message.contains(":2: found the host name") == true)
        #expect(inFile?.message.contains("\n") == false && inFile?.message.contains("\u{1b}") == false)
        #expect(throws: LaunchError.self) { try HostList.list("node0:1,\(name):2") }
        let environment = ["SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "x"]
        #expect(throws: LaunchError.self) { try SlurmAllocation(environment) { _ in ["node0", name] } }
    }

    @Test(arguments: ["node-0.example.org", "10.0.0.7", "NODE_1", "0node"]) func takesPlainNames(name: String)
        throws
    {
        #expect(try read("\(name)\n") == [HostEntry(name)])
        #expect(try HostList.list("\(name):2") == [HostEntry(name, slots: 2)])
    }

    @Test func readsAnAllocation() throws {
        let environment = [
            "SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "node[0-2]", "SLURM_NTASKS": "9",
            "SLURM_TASKS_PER_NODE": "4(x2),1", "SLURM_CPUS_PER_TASK": "8", "SLURM_RESTART_COUNT": "2",
        ]
        let allocation = try SlurmAllocation(environment) { _ in ["node0", "node1", "node2"] }
        #expect(allocation.hosts.map(\.slots) == [4, 4, 1])
        #expect(allocation.threads == 8 && allocation.restarts == 2 && allocation.job == "17")
        #expect(throws: LaunchError.self) { try SlurmAllocation([:]) { _ in [] } }
    }

    /// A job that requested processors, not tasks.
    @Test func sharesProcessorsOut() throws {
        let environment = [
            "SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "node[0-1]", "SLURM_JOB_CPUS_PER_NODE": "16(x2)",
            "SLURM_CPUS_PER_TASK": "4",
        ]
        let allocation = try SlurmAllocation(environment) { _ in ["node0", "node1"] }
        #expect(allocation.hosts.map(\.slots) == [4, 4])
    }

    /// One whole node: hardware threads do not count as ranks.
    @Test func leavesAWholeNodeToItsHost() throws {
        let environment = [
            "SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "node0", "SLURM_JOB_CPUS_PER_NODE": "128",
            "SLURM_TASKS_PER_NODE": "128",
        ]
        let allocation = try SlurmAllocation(environment) { _ in ["node0"] }
        #expect(allocation.hosts == [HostEntry("node0")])
        #expect(allocation.threads == nil)
    }
}
