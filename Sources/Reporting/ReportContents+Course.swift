import Foundation
import Records
import Support

// Starts, stops and failures.

extension ReportContents {
    var restarts: ReportSection {
        ReportSection(
            id: "restarts", title: say("Starts and restarts", "起動と再開"),
            blocks: runs.flatMap { run -> [ReportBlock] in
                let heading: [ReportBlock] = isComparison ? [.heading(run.label)] : []
                return heading + course(of: run)
            })
    }

    /// The history of a run's starts, from the launcher's record or, without one, from the starts in the
    /// metrics.
    func course(of run: ReportedRun) -> [ReportBlock] {
        var blocks: [ReportBlock] = []
        if let attempts = run.launch?.attempts, !attempts.isEmpty {
            blocks.append(.table(table(of: attempts)))
        } else if !run.sessions.isEmpty {
            blocks.append(.table(table(of: run.sessions)))
        } else {
            blocks.append(
                .missing(say("No start has been recorded.", "起動の記録がありません。")))
        }
        var notes = run.failures.map { failure in
            say(
                "Attempt \(failure.attempt): \(failure.cause)", "試行 \(failure.attempt): \(failure.cause)")
        }
        if let status = run.status, status.state == .failed || status.state == .stopped,
            let message = status.message, run.failures.isEmpty
        {
            notes.append(message)
        }
        if run.unreadableLines > 0 {
            notes.append(
                say(
                    "Skipped unreadable lines of `metrics.jsonl`: \(run.unreadableLines).",
                    "`metrics.jsonl` の \(run.unreadableLines) 行は壊れているため除きました。"))
        }
        if !run.checkpoints.isEmpty {
            notes.append(
                say("Checkpoints kept: ", "保存されているチェックポイント: ")
                    + run.checkpoints.suffix(8).map { say.whole($0) }.joined(separator: ", "))
        }
        if !notes.isEmpty { blocks.append(.list(notes)) }
        return blocks
    }

    private func table(of attempts: [LaunchRecord.Attempt]) -> ReportTable {
        ReportTable(
            head: [
                say("attempt", "試行"), say("started", "開始"), say("duration", "時間"), say("from step", "再開ステップ"),
                say("to step", "到達ステップ"), say("hosts", "ホスト"), say("result", "終了"),
            ],
            rows: attempts.suffix(20).map { attempt in
                [
                    "\(attempt.number)", say.time(attempt.startedAt),
                    attempt.endedAt.map { say.span($0 - attempt.startedAt) } ?? "–",
                    attempt.firstStep.map { say.whole($0) } ?? "–",
                    attempt.lastStep.map { say.whole($0) } ?? "–",
                    attempt.hosts.prefix(4).joined(separator: ", "),
                    ending(attempt),
                ]
            }, numeric: [0, 2, 3, 4])
    }

    private func ending(_ attempt: LaunchRecord.Attempt) -> String {
        switch attempt.exitStatus {
        case nil: return attempt.endedAt == nil ? say("not recorded", "記録なし") : attempt.message ?? "–"
        case ExitStatus.success: return say("done", "完了")
        case ExitStatus.runAgain: return say("stopped with a checkpoint", "チェックポイントを残して停止")
        case let status?:
            return say("failed, exit code \(status)", "失敗 (終了コード \(status))")
        }
    }

    private func table(of sessions: [ReportedSession]) -> ReportTable {
        ReportTable(
            head: [
                say("start", "起動"), say("started", "開始"), say("training time", "学習時間"),
                say("from step", "再開ステップ"), say("to step", "到達ステップ"), say("ranks", "ランク"),
                say("hosts", "ホスト"),
            ],
            rows: sessions.enumerated().suffix(20).map { index, session in
                [
                    "\(index + 1)", session.startedAt.map { say.time($0) } ?? "–", say.span(session.seconds),
                    session.resumedStep.map { say.whole($0) } ?? "–",
                    session.lastStep.map { say.whole($0) } ?? "–", session.ranks.map(String.init) ?? "–",
                    session.hosts.prefix(4).joined(separator: ", "),
                ]
            }, numeric: [0, 2, 3, 4, 5])
    }
}

extension ReportedRun {
    /// The causes of failure in the launcher's post-mortem files, one line each.
    var failures: [(attempt: Int, cause: String)] {
        let logs = "\(folder.path)/\(LaunchRecord.logs)"
        let names = (try? FileManager.default.contentsOfDirectory(atPath: logs)) ?? []
        return names.sorted().compactMap { name in
            guard name.hasPrefix("attempt-"), let number = Int(name.dropFirst(8)),
                let data = try? readWholeFile("\(logs)/\(name)/postmortem.txt", limit: 16 << 20)
            else { return nil }
            let lines = String(decoding: data, as: UTF8.self).split(separator: "\n")
            let mark = "What happened"
            guard let line = lines.first(where: { $0.hasPrefix(mark) }) else { return nil }
            return (number, line.dropFirst(mark.count).trimmingCharacters(in: .whitespaces))
        }.suffix(20)
    }

    /// Number of restarts.
    var restartCount: Int { max((launch?.attempts.count ?? 0) - 1, sessions.count - 1, 0) }
}
