using System;
using System.Collections.Generic;

namespace Musedrop
{
    /// <summary>How good the picture of the video is, and how large its file.</summary>
    public enum VideoQuality
    {
        /// <summary>The smallest file (crf 30).</summary>
        Low,
        /// <summary>crf 23.</summary>
        Medium,
        /// <summary>crf 18, which is the default.</summary>
        High,
        /// <summary>The largest file (crf 14).</summary>
        Ultra
    }

    /// <summary>Which of several waiting jobs runs first.</summary>
    public enum JobPriority
    {
        /// <summary>After the others.</summary>
        Low,
        /// <summary>In the order of arrival.</summary>
        Normal,
        /// <summary>Before the others.</summary>
        High
    }

    /// <summary>What is asked for: one face, one voice, and how the video should be. What is null is left to the daemon.</summary>
    public sealed class DigitalHumanRequest
    {
        /// <summary>An image or a video with the face, on this computer or any share; it is copied into the inbox.</summary>
        public string AvatarImagePath { get; set; }
        /// <summary>The name of an avatar of the library, instead of <see cref="AvatarImagePath"/>.</summary>
        public string TemplateId { get; set; }
        /// <summary>A file with the voice; it is copied into the inbox.</summary>
        public string AudioPath { get; set; }
        /// <summary>Quality of the picture.</summary>
        public VideoQuality? Quality { get; set; }
        /// <summary>Frames a second, above 0 and at most 120; 29.97 means 30000/1001. Null: 25 for an image, the video's own for a video.</summary>
        public double? Fps { get; set; }
        /// <summary>Frames in one batch of the MuseTalk engine.</summary>
        public int? BatchSize { get; set; }
        /// <summary>Pixels by which the MuseTalk engine moves the box of the face.</summary>
        public int? BboxShift { get; set; }
        /// <summary>Which of several waiting jobs runs first.</summary>
        public JobPriority? Priority { get; set; }
        /// <summary>Your own name for the job, 1 to 128 printable characters; it comes back with the result. Null: a new GUID.</summary>
        public string CacheKey { get; set; }
        /// <summary>Name of the result's folder. Null: the name of the audio file and something that makes it unique.</summary>
        public string Name { get; set; }
        /// <summary>auto, preview or musetalk.</summary>
        public string Engine { get; set; }
        /// <summary>Seconds that one attempt may take on the daemon before the job fails.</summary>
        public double? TimeoutSeconds { get; set; }
    }

    /// <summary>How a job ended.</summary>
    public sealed class DigitalHumanResponse
    {
        /// <summary>Whether there is a video.</summary>
        public bool Success { get; internal set; }
        /// <summary>Full path of the mp4 on the share; null without success.</summary>
        public string VideoPath { get; internal set; }
        /// <summary>The error's code, such as no_face; null with success. See docs/errors.md and <see cref="ErrorCodes"/>.</summary>
        public string Error { get; internal set; }
        /// <summary>What kind of error it is, for code that has to decide.</summary>
        public ErrorKind ErrorKind { get; internal set; }
        /// <summary>What happened, in words; empty with success.</summary>
        public string Message { get; internal set; }
        /// <summary>What to do about the error; empty with success.</summary>
        public string Hint { get; internal set; }
        /// <summary>From the job's start on a device to its end.</summary>
        public TimeSpan ProcessingTime { get; internal set; }
        /// <summary>Length of the video.</summary>
        public TimeSpan Duration { get; internal set; }
        /// <summary>Whether an earlier result was returned.</summary>
        public bool FromCache { get; internal set; }
        /// <summary>When the job ended, UTC; null if the daemon has not answered.</summary>
        public DateTime? CompletedAt { get; internal set; }
        /// <summary>
        /// All of result.json (docs/result.md), or what is known of the error: texts, long, double, bool, null,
        /// lists (<see cref="IList{T}"/> of object) and objects (<see cref="IDictionary{TKey,TValue}"/> of string to object).
        /// </summary>
        public IDictionary<string, object> Metadata { get; internal set; }

        internal DigitalHumanResponse()
        {
            Message = "";
            Hint = "";
            Metadata = new Dictionary<string, object>();
        }
    }
}
