using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.IO;
using System.Linq;

namespace Musedrop
{
    /// <summary>status.json, read at most once per `freshness` for all jobs.</summary>
    internal sealed class StatusFile
    {
        readonly object gate = new object();
        readonly string path;
        readonly TimeSpan freshness;
        readonly Stopwatch age = new Stopwatch();
        JsonFields last;

        public StatusFile(string path, TimeSpan freshness)
        {
            this.path = path;
            this.freshness = freshness;
        }

        /// <summary>The latest content that could be read; null if none could be.</summary>
        public JsonFields Read()
        {
            lock (gate)
            {
                if (age.IsRunning && age.Elapsed < freshness) return last;
                last = Records.Read(path) ?? last;
                age.Restart();
                return last;
            }
        }
    }

    /// <summary>What the share says about one job at one time: its result or error, else its progress.</summary>
    internal sealed class JobSnapshot
    {
        public DigitalHumanResponse Response;
        public JobProgress Progress;
        public bool Reachable;
        /// <summary>The daemon has no unfinished jobs.</summary>
        public bool Idle;
    }

    /// <summary>Reads the state of one job. Records are matched by the job's id: names may be taken, folders and rows may be old.</summary>
    internal sealed class JobWatcher
    {
        readonly ShareFolder folder;
        readonly StatusFile status;
        readonly JobTicket ticket;
        readonly HashSet<string> foreign;

        public JobWatcher(ShareFolder folder, StatusFile status, JobTicket ticket)
        {
            this.folder = folder;
            this.status = status;
            this.ticket = ticket;
            foreign = new HashSet<string>(ticket.Earlier, StringComparer.OrdinalIgnoreCase);
        }

        /// <summary>Returns the uids and folders that exist before a job is submitted, and so belong to other jobs.</summary>
        public static ICollection<string> ListExisting(ShareFolder folder, StatusFile status, string name, string id)
        {
            var record = status.Read() ?? new JsonFields(null);
            var results = Records.ListNumberedFolders(folder.Outbox, name).Select(place => Records.Read(Path.Combine(place, "result.json")));
            var errors = Records.ListNumberedFolders(folder.Failed, name).Select(place => Records.Read(Path.Combine(place, "error.json")));
            var ended = results.Concat(errors).Where(fields => fields != null);  // status.json may not have them yet
            var rows = record.GetObjects("recent").Concat(record.GetObjects("running")).Concat(ended);
            var uids = rows.Where(row => row.GetString("id") == id).Select(row => row.GetStringOrEmpty("uid"));
            return uids.Concat(Records.ListFolders(folder.Outbox, name)).Concat(Records.ListFolders(folder.Failed, name)).ToList();
        }

        public JobSnapshot ReadSnapshot()
        {
            var record = status.Read() ?? new JsonFields(null);
            var row = FindRow(record);
            var progress = ReadProgress(record, row);
            var answer = ReadResult() ?? ReadFailure() ?? ReadEnd(row);
            return new JobSnapshot { Response = answer, Progress = progress, Reachable = folder.Reachable, Idle = IsIdle(record) };
        }

        /// <summary>Returns the job's row, a running one first: a finished job may have been retried.</summary>
        JsonFields FindRow(JsonFields record)
        {
            var rows = record.GetObjects("running").Concat(record.GetObjects("recent"));
            return rows.FirstOrDefault(row => row.GetString("id") == ticket.Id && !foreign.Contains(row.GetStringOrEmpty("uid")));
        }

        static bool IsIdle(JsonFields record)
        {
            var counts = record.GetObject("counts");
            return counts.All.Count > 0 && new[] { "waiting", "queued", "running" }.All(state => counts.GetLong(state) == 0);
        }

        // how it ended

        DigitalHumanResponse ReadResult()
        {
            var path = FindRecord(folder.Outbox, "result.json");
            return path == null ? null : Answers.FromResult(path, Records.Read(path));
        }

        DigitalHumanResponse ReadFailure()
        {
            var path = FindRecord(folder.Failed, "error.json");
            var record = path == null ? null : Records.Read(path);
            return record == null ? null : Answers.FromError(record, record.GetString("code"), record.GetStringOrEmpty("message"), record.GetStringOrEmpty("hint"));
        }

        /// <summary>Returns the end of the job by its row: files of a failed job appear later, a result folder may have another name.</summary>
        DigitalHumanResponse ReadEnd(JsonFields row)
        {
            var state = row == null ? "" : row.GetStringOrEmpty("state");
            if (ticket.TakenBack) return Answers.FromCode("cancelled", "the job was removed before the daemon claimed it", "");
            if (state == "cancelled") return Answers.FromError(row, "cancelled", "the job was cancelled", "");
            if (state == "failed") return Answers.FromError(row, row.GetString("error_code"), row.GetStringOrEmpty("error_message"), row.GetStringOrEmpty("error_hint"));
            if (state != "done") return null;
            var path = Path.Combine(folder.Outbox, row.GetStringOrEmpty("result"), "result.json");
            var record = Records.Read(path);
            return record != null && record.GetString("id") == ticket.Id ? Answers.FromResult(path, record) : null;
        }

        /// <summary>Returns the path of the job's record in `parent`, or null. Folders of other jobs are read once.</summary>
        string FindRecord(string parent, string file)
        {
            foreach (var place in Records.ListNumberedFolders(parent, ticket.Name).Where(place => !foreign.Contains(place)))
            {
                var path = Path.Combine(place, file);
                var record = Records.Read(path);
                if (record != null && record.GetString("id") == ticket.Id) return path;
                if (record != null) foreign.Add(place);
            }
            return null;
        }

        // where it is

        JobProgress ReadProgress(JsonFields record, JsonFields row)
        {
            var queued = row == null ? FindQueuedRow(record) : null;
            var progress = new JobProgress { State = ReadState(row ?? queued), DaemonRunning = record.GetObject("daemon").GetBool("running") };
            if (queued != null) progress.Position = queued.GetLong("position");
            progress.WaitingFor = (row ?? queued ?? new JsonFields(null)).GetStringOrEmpty("waiting_for");
            if (progress.State != JobState.Running) return progress;
            progress.Stage = row.GetStringOrEmpty("stage");
            progress.Percent = row.GetDouble("percent");
            progress.UnitsDone = row.GetLong("units_done");
            progress.UnitsTotal = row.GetLong("units_total");
            return progress;
        }

        /// <summary>Returns the job's row in the queue, by its id if the row has one, else by its name.</summary>
        JsonFields FindQueuedRow(JsonFields record)
        {
            return record.GetObjects("queue").FirstOrDefault(row => (row.GetString("id") ?? ticket.Id) == ticket.Id && row.GetString("name") == ticket.Name);
        }

        JobState ReadState(JsonFields row)
        {
            JobState state;
            if (row != null && Enum.TryParse(row.GetStringOrEmpty("state"), true, out state)) return state;
            return folder.IsSubmitted(ticket.Name) ? JobState.Submitted : JobState.Accepted;
        }
    }

    /// <summary>Converts records of the share into responses.</summary>
    internal static class Answers
    {
        const double MaxSeconds = 1e9;

        /// <summary>Returns null while the record or its video is missing.</summary>
        public static DigitalHumanResponse FromResult(string path, JsonFields record)
        {
            if (record == null) return null;
            var video = Path.Combine(Path.GetDirectoryName(path), Path.GetFileName(record.GetString("video") ?? "result.mp4"));
            if (!File.Exists(video)) return null;
            var response = CreateResponse(record);
            response.Success = true;
            response.VideoPath = video;
            response.Duration = TimeSpan.FromSeconds(Math.Min(Math.Max(0, record.GetDouble("duration_s")), MaxSeconds));
            response.FromCache = record.GetBool("from_cache");
            return response;
        }

        public static DigitalHumanResponse FromError(JsonFields record, string code, string message, string hint)
        {
            return SetError(CreateResponse(record), code ?? "internal", message, hint);
        }

        public static DigitalHumanResponse FromCode(string code, string message, string hint)
        {
            return SetError(new DigitalHumanResponse(), code, message, hint);
        }

        static DigitalHumanResponse SetError(DigitalHumanResponse response, string code, string message, string hint)
        {
            response.Error = code;
            response.ErrorKind = ErrorCodes.KindOf(code);
            response.Message = message;
            response.Hint = hint;
            return response;
        }

        static DigitalHumanResponse CreateResponse(JsonFields record)
        {
            DateTime? started = record.GetTime("started_at"), finished = record.GetTime("finished_at");
            var took = started != null && finished > started ? finished.Value - started.Value : TimeSpan.Zero;
            return new DigitalHumanResponse { CompletedAt = finished, ProcessingTime = took, Metadata = record.All, Notes = record.GetStrings("notes").ToList() };
        }
    }
}
