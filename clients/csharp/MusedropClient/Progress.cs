using System;
using System.Collections.Generic;

namespace Musedrop
{
    /// <summary>The state of a job.</summary>
    public enum JobState
    {
        /// <summary>Its file is in the inbox; the daemon has not claimed it.</summary>
        Submitted,
        /// <summary>The daemon has claimed it; its state is not published yet.</summary>
        Accepted,
        /// <summary>Some of its media are missing.</summary>
        Waiting,
        /// <summary>It waits for a free device.</summary>
        Queued,
        /// <summary>It runs.</summary>
        Running,
        /// <summary>Its video is published.</summary>
        Done,
        /// <summary>It failed.</summary>
        Failed,
        /// <summary>It was cancelled.</summary>
        Cancelled
    }

    /// <summary>The progress of an unfinished job. Immutable; each report is a new object.</summary>
    public sealed class JobProgress
    {
        /// <summary>The state of the job.</summary>
        public JobState State { get; internal set; }
        /// <summary>The stage of a running job: inspect, prepare, render, assemble or publish; else empty.</summary>
        public string Stage { get; internal set; }
        /// <summary>0 to 100.</summary>
        public double Percent { get; internal set; }
        /// <summary>Finished units of the stage; frames, while it renders.</summary>
        public long UnitsDone { get; internal set; }
        /// <summary>Units of the stage.</summary>
        public long UnitsTotal { get; internal set; }
        /// <summary>Place in the queue, from 1; 0 if it isn't in the queue, or too far behind to be listed.</summary>
        public long Position { get; internal set; }
        /// <summary>What the job waits for, as a sentence; else empty.</summary>
        public string WaitingFor { get; internal set; }
        /// <summary>Whether the daemon runs according to status.json, which says so after a crash, too.</summary>
        public bool DaemonRunning { get; internal set; }

        internal JobProgress()
        {
            Stage = "";
            WaitingFor = "";
        }

        /// <summary>One line for display.</summary>
        public override string ToString()
        {
            if (State == JobState.Running) return string.Format("{0} {1:0} % ({2} of {3})", Stage, Percent, UnitsDone, UnitsTotal);
            if (State == JobState.Queued && Position > 0) return "queued, place " + Position;
            if (WaitingFor.Length > 0) return State.ToString().ToLowerInvariant() + ": " + WaitingFor;
            return State.ToString().ToLowerInvariant();
        }
    }

    /// <summary>A submitted job. Keep name and id to wait for it again after a restart of your program.</summary>
    public sealed class JobTicket
    {
        /// <summary>The job's name, which is that of its file and of its result folder, or NAME-2 if that was taken.</summary>
        public string Name { get; private set; }
        /// <summary>The id in the job file; the result is found by it.</summary>
        public string Id { get; private set; }

        /// <summary>The files that were copied into the inbox for it.</summary>
        internal readonly ICollection<string> Media;
        /// <summary>Folders and uids that existed before it, and so belong to other jobs.</summary>
        internal readonly ICollection<string> Earlier;
        internal volatile bool TakenBack;

        /// <summary>A ticket for a job that was submitted before.</summary>
        /// <param name="name">The job's name.</param>
        /// <param name="id">The id (or CacheKey) in the job file.</param>
        public JobTicket(string name, string id) : this(name, id, new string[0], new string[0])
        {
        }

        internal JobTicket(string name, string id, ICollection<string> media, ICollection<string> earlier)
        {
            if (name == null) throw new ArgumentNullException("name");
            if (id == null) throw new ArgumentNullException("id");
            Name = name;
            Id = id;
            Media = media;
            Earlier = earlier;
        }
    }
}
